"""Costs of a rank's compute, all-reduces and stage-to-stage messages."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from math import ceil, log2
from typing import Any

import numpy as np

from reports.communication.points import FAMILIES
from reports.plan import estimate
from reports.plan.estimate import (
    BEYOND_LARGEST,
    COST_FIELDS,
    UNKNOWN_COST,
    Assumption,
    Cost,
    CostCurve,
    CostField,
    MissingMeasurementError,
    Origin,
    OriginAt,
    Seconds,
    Sizes,
    choose_costs,
    constant_origin,
    fastest,
    first_known,
    kept,
    sum_costs,
)
from reports.plan.profile import HardwareProfile
from reports.plan.query import Interconnect, PlanQuery
from specs import layer as specs_layer
from specs.layer import HEAD_SHARE, LAYER_LINEARS, WHOLE_LAYER
from specs.measurement import Measurement
from specs.parallel import Split
from specs.traffic import TRAFFIC
from specs.units import AttentionFormat, format_bytes

LAUNCH_PREFERENCE = ("graph", "eager", "unknown")
"""Launch modes, best first.

A step runs in a graph, so timings in a graph exclude the rest.
"""
SizedMeasurements = Iterable[tuple[int, Measurement]]


class ComputeCosts:
    """Compute costs of one implementation of one model.

    All methods take one size or an array of sizes. A cost is NaN at sizes that were not measured, and an error is
    raised where that holds for all sizes.

    Args:
        profile: hardware and its measurements.
        query: model and context.
        implementation: source of the linears; where it has no attention, another's is used.
    """

    def __init__(self, profile: HardwareProfile, query: PlanQuery, implementation: str) -> None:
        self._profile, self._query, self._implementation = profile, query, implementation

    def layer(self, split: Split, sequences: Sizes, busy: int, mean_rank: Any = np.False_) -> Cost:
        """Cost of a whole decode layer; NaN where no file covers the batch.

        A rank's share, measured beside `busy` ranks, comes before a layer measured alone. It is the slowest rank's, or
        the mean rank's at sizes where `mean_rank` is true.
        """
        context = self._query.context
        shares = (
            self._curve(
                ("share", split.tp, busy, context, mean),
                lambda one: (
                    one.case.question == specs_layer.SHARES_QUESTION
                    and (one.case.tp, one.case.ranks, one.case.context) == (split.tp, busy, context)
                ),
                WHOLE_LAYER,
                cost=self._profile.mean_rank_cost if mean else None,
            )
            for mean in (True, False)
        )
        whole = self._curve(
            ("layer", split.tp, context),
            lambda one: (
                one.case.question == WHOLE_LAYER
                and one.case.batch == one.case.tokens
                and (one.case.tp, one.case.context) == (split.tp, context)
            ),
            WHOLE_LAYER,
        )
        mean, slowest, alone = (one.within(sequences) if one else UNKNOWN_COST for one in (*shares, whole))
        return first_known([choose_costs(mean_rank, mean, slowest), alone])

    @kept
    def linears(self, split: Split, rows: Sizes) -> Cost:
        """Cost of all linears of a layer.

        Raises:
            MissingMeasurementError: a linear was not measured, or not with as many tokens.
        """
        return sum_costs(self._linear(split, name, rows) for name in LAYER_LINEARS)

    @kept
    def head(self, split: Split, rows: Sizes, busy: int, *, mean_rank: bool = False) -> Cost:
        """Cost of the LM head; an unmeasured vocabulary width is scaled from another.

        A rank's share is the slowest rank's, or with `mean_rank` the mean rank's.

        Raises:
            MissingMeasurementError: no LM head was measured with as many tokens.
        """
        cost = first_known(self._heads(split.vocab_per_rank, rows, busy, mean_rank=mean_rank))
        if cost.unknown.all():
            raise MissingMeasurementError(
                f"no LM head of {self._query.model} with {np.min(rows):g} tokens on {self._profile.name}"
            )
        return cost

    def _heads(self, n: int, rows: Sizes, busy: int, *, mean_rank: bool) -> Iterator[Cost]:
        """Yield costs of the LM head by all measured widths, the best source first."""
        cost_of = self._profile.mean_rank_cost if mean_rank else None
        for at_once, fits in ((busy, partial(_is_share_beside, busy)), (None, _is_alone)):
            for size in sorted(self._lm_head_widths, key=lambda one: (one != n, -one)):
                key, has_rows = (HEAD_SHARE, at_once, size, mean_rank), partial(_has_rows, size, fits)
                if found := self._curve(key, has_rows, "linear", HEAD_SHARE, cost_of):
                    cost = found.within(rows)
                    yield cost if size == n else cost.scaled(n / size).weakened(BEYOND_LARGEST)

    @cached_property
    def _lm_head_widths(self) -> set[int]:
        """Vocabulary widths with which LM heads were measured."""
        return {one.case.n for one in self._own("linear", HEAD_SHARE) if one.case.n}

    @kept
    def attention(self, split: Split, sequences: Sizes) -> Cost:
        """Cost of decode attention; contexts are interpolated.

        Beyond the largest batch the cost grows linearly, as the KV cache does.

        Raises:
            MissingMeasurementError: none for these heads, or for contexts around the query's.
        """
        context = self._query.context
        sizes = sorted(self._profile.attention(self._query.model, split.tp, "decode", self._decode_format(split)))
        if not sizes:
            raise MissingMeasurementError(
                f"no decode attention of {self._query.model} at tp {split.tp} on {self._profile.name}: no case has its "
                f"{split.model.heads // split.tp} query and {split.kv_heads_per_rank} KV heads a rank; choose "
                "another model or width, or measure with suites/bench_attention.py"
            )
        if context in sizes:
            return self._decode_attention(split, context, sequences)
        place = bisect_left(sizes, context)
        if not 0 < place < len(sizes):
            raise MissingMeasurementError(
                f"context {context}: decode attention of tp {split.tp} was measured from {sizes[0]} to {sizes[-1]} on "
                f"{self._profile.name}; choose one within"
            )
        low, high = sizes[place - 1], sizes[place]
        share = (context - low) / (high - low)
        a, b = (self._decode_attention(split, one, sequences) for one in (low, high))
        return sum_costs([a.scaled(1 - share), b.scaled(share)]).weakened("interpolated")

    def prompt_attention(self, split: Split, tokens: Sizes) -> Cost:
        """Cost of prefill attention over one prompt.

        The formats are those of decode where they were measured, else the next ones.

        Raises:
            MissingMeasurementError: none for these heads.
        """
        formats = dict.fromkeys((self._decode_format(split), *self._profile.number_format.attention))
        for own in (True, False):
            for pair in formats:
                by_context = self._profile.attention(self._query.model, split.tp, "prefill", pair)
                among = [one for alike in by_context.values() for one in alike if one.case.tokens == one.case.context]
                if found := self._attention_curve(("prompt", split.tp, pair), among, own=own):
                    return found.at(tokens)
        raise MissingMeasurementError(
            f"no prefill attention of {self._query.model} at tp {split.tp} on {self._profile.name}"
        )

    def _linear(self, split: Split, name: str, rows: Sizes) -> Cost:
        found, calls = self.linear_curve(split, name)
        if not found:
            widths = sorted({one.case.tp for one in self._linears(name) if one.case.tp})
            self._raise_if_only_shares(split)
            there = f"there are those of tp {', '.join(map(str, widths))}" if widths else "there are none of this model"
            raise MissingMeasurementError(
                f"no linear {name} of {split.model} at tp {split.tp} on {self._profile.name}: {there}; measure or "
                f"import --tp {split.tp}{f' or {2 * split.tp}' if _is_gate_and_up(split, name) else ''}"
            )
        cost = found.within(rows)
        if cost.unknown.all():
            raise MissingMeasurementError(
                f"{np.min(rows):g} tokens through {name} at tp {split.tp}: measured up to {found.largest} on "
                f"{self._profile.name}; plan for a smaller batch, or measure more --tokens"
            )
        return cost if calls == 1 else cost.scaled(calls).weakened("interpolated")

    def linear_curve(self, split: Split, name: str) -> tuple[CostCurve | None, int]:
        """Cost over tokens of a linear, and the calls that it takes.

        Gate and up side by side take two calls of half the width where the whole width was not measured.
        """
        shard = split.linear(name)
        whole = self._shape_curve(name, shard.n, shard.k)
        if whole or not _is_gate_and_up(split, name):
            return whole, 1
        return self._shape_curve(name, shard.n // 2, shard.k), 2

    def _shape_curve(self, name: str, n: int, k: int) -> CostCurve | None:
        return self._curve(("linear", name, n, k), lambda one: (one.case.n, one.case.k) == (n, k), "linear", name)

    def _raise_if_only_shares(self, split: Split) -> None:
        """Raise where only ranks' shares of layers were measured.

        Raises:
            MissingMeasurementError: the message lists the shares.
        """
        cases = [one.case for one in self._own(WHOLE_LAYER, WHOLE_LAYER)]
        found = [case for case in cases if case.question == specs_layer.SHARES_QUESTION]
        if not found:
            return
        tps, contexts, at_once = (
            ", ".join(map(str, sorted({one for one in values if one})))
            for values in ([c.tp for c in found], [c.context for c in found], [c.ranks for c in found])
        )
        raise MissingMeasurementError(
            f"no layer of {split.model} at tp {split.tp}, context {self._query.context} on {self._profile.name} but as "
            f"ranks' shares, of a token a sequence: at tp {tps}, context {contexts}, {at_once} ranks at once, up to "
            f"{max(case.tokens or 0 for case in found)} sequences; ask for these, or run suites/bench_shares.py"
        )

    def _linears(self, name: str) -> Iterator[Measurement]:
        """Yield linears of this model and implementation that ran alone."""
        for one in self._own("linear", name):
            if one.case.question != specs_layer.SHARES_QUESTION and one.case.tokens:
                yield one

    def _own(self, op: str, layer: str) -> Sequence[Measurement]:
        """Measurements of this model and implementation."""
        return self._profile.measurements_by_layer.get((op, self._query.model, layer, self._implementation), ())

    def _curve(
        self,
        key: tuple[object, ...],
        fits: Callable[[Measurement], bool],
        op: str,
        layer: str | None = None,
        cost: Callable[[Measurement], Cost] | None = None,
    ) -> CostCurve | None:
        """Cost over tokens of this implementation's fitting cases; None if none."""
        of = self._query.model, layer or op, self._implementation

        def points(launch: str) -> SizedMeasurements:
            for one in self._own(op, layer or op):
                if one.case.launch == launch and one.case.tokens and fits(one):
                    yield one.case.tokens, one

        for launch in LAUNCH_PREFERENCE:
            if found := self._profile.curve((*of, *key, launch), partial(points, launch), cost):
                return found
        return None

    def _decode_format(self, split: Split) -> AttentionFormat:
        return self._profile.decode_format(self._query.model, split.tp, self._query.context)

    def _decode_attention(self, split: Split, context: int, sequences: Sizes) -> Cost:
        """Cost of decode attention at a measured context: the implementation's own, else the fastest."""
        formats = self._decode_format(split)
        among = self._profile.attention(self._query.model, split.tp, "decode", formats)[context]
        key = "decode", split.tp, context, formats
        curves = (self._attention_curve(key, among, own=own) for own in (True, False))
        return next(one for one in curves if one).at(sequences)

    def _attention_curve(self, key: tuple[object, ...], among: Sequence[Measurement], *, own: bool) -> CostCurve | None:
        """Cost over tokens of the implementation's own attention, or of the fastest."""

        def points() -> SizedMeasurements:
            for one in among:
                if one.case.tokens and (not own or one.case.implementation == self._implementation):
                    yield one.case.tokens, one

        who = self._implementation if own else ""
        return self._profile.curve((self._query.model, "attention", *key, who), points)


def _is_gate_and_up(split: Split, name: str) -> bool:
    return split.model.gated and name == split.model.up_layer


def _is_share_beside(busy: int, one: Measurement) -> bool:
    return one.case.question == specs_layer.SHARES_QUESTION and one.case.ranks == busy


def _is_alone(one: Measurement) -> bool:
    return one.case.question != specs_layer.SHARES_QUESTION


def _has_rows(n: int, fits: Callable[[Measurement], bool], one: Measurement) -> bool:
    return one.case.n == n and fits(one)


# Messages over a hypothetical link: another bandwidth or latency, or shared with other traffic.

UNCHANGED_LINKS = Interconnect()


def modelled_hop_cost(message_bytes: Sizes, interconnect: Interconnect, usual: Assumption, usual_rate: float) -> Cost:
    """Cost of an unmeasured hop; figures that the query does not set are assumed."""
    moved = message_bytes / available_rate(interconnect, usual_rate)
    seconds, low, high = (wait + moved for wait in latency_range(interconnect, usual))
    origin = constant_origin("assumed" if interconnect == UNCHANGED_LINKS else "modelled")
    return Cost(seconds, low, high, 0.0, origin)


def available_rate(interconnect: Interconnect, usual: float) -> float:
    """Rate of a link that other users leave, in bytes/s and one direction."""
    return (interconnect.bytes_per_second or usual) * interconnect.share


def latency_range(interconnect: Interconnect, usual: Assumption) -> tuple[float, float, float]:
    """Latency of a message in seconds: value, low, high."""
    given = interconnect.latency_seconds
    return (usual.value, usual.low, usual.high) if given is None else (given, given, given)


def rescale_to_link(curve: CostCurve, one: Cost, interconnect: Interconnect, usual_rate: float) -> Cost:
    """Rescale a measured message time to another link.

    The smallest message shows the latency, which scales by the hypothetical over the assumed latency. The rest moved
    bytes and scales with the rates, so an algorithm keeps its efficiency.

    Args:
        curve: measured times over bytes.
        one: cost of the message by this curve.
        interconnect: the hypothetical link.
        usual_rate: rate of the existing link, in bytes/s and one direction.
    """
    start = curve.at(curve.smallest)
    given = interconnect.latency_seconds
    further = 1.0 if given is None else given / estimate.HOP_SECONDS.value
    slower = usual_rate / available_rate(interconnect, usual_rate)

    def rescaled(pick: CostField) -> Seconds:
        return further * pick(start) + slower * np.maximum(0.0, pick(one) - pick(start))

    seconds, low, high = map(rescaled, COST_FIELDS)
    return Cost(seconds, low, high, one.half_width * max(further, slower), _modelled(one))


def _modelled(one: Cost) -> OriginAt:
    """Modelled origin with the cases of a cost."""
    return lambda place: Origin("modelled", Origin.merge([one.origin_at(place)]).cases)


def measured_link_rate(curve: CostCurve, op: str, ranks: int) -> float:
    """Rate of the largest message over a link, in bytes/s and one direction."""
    most = curve.largest
    return TRAFFIC[op].sent_factor(ranks) * most / float(curve.at(most).seconds)


# Costs of messages: all-reduces by kernel family and launch mode, and hops (stage-to-stage messages).

HOP_OP = "ping_pong"
REDUCED_LINEARS = ("o", "down")
"""Linears that an all-reduce follows."""
BACKEND_FAMILIES = {"custom": ("custom",), "nccl": ("nccl", "rccl")}


class CommCosts:
    """Message costs of one implementation, for one message size or an array of sizes.

    Args:
        profile: hardware and its measurements.
        query: backend and links.
        implementation: source of the linears; an engine's own all-reduce goes only with its own linears.
    """

    def __init__(self, profile: HardwareProfile, query: PlanQuery, implementation: str) -> None:
        self._profile, self._query, self._implementation = profile, query, implementation

    @kept
    def all_reduce(self, ranks: int, message_bytes: Sizes) -> Cost:
        """Cost of an all-reduce over neighbouring ranks; NaN for messages larger than any measured.

        One timed behind a linear holds the wait for the latest rank, and comes before one timed back to back.

        Raises:
            MissingMeasurementError: none for as many ranks, or for messages as large.
        """
        nodes, in_step = self._query.interconnect.hosts_spanned(ranks), self.in_step(ranks, message_bytes)
        if nodes > 1:
            return self._across_nodes(ranks, nodes, message_bytes)
        if not in_step.unknown.any():
            return in_step
        return first_known([in_step, self._within_node(ranks, message_bytes)])

    @kept
    def in_step(self, ranks: int, message_bytes: Sizes) -> Cost:
        """Cost of an all-reduce timed behind a linear, wait for the latest rank included; NaN where there is none.

        It is the mean over those behind the two linears of a layer. None serves a hypothetical link.
        """
        if self._query.interconnect.is_hypothetical or not self._profile.has_late_all_reduces:
            return UNKNOWN_COST
        return fastest([UNKNOWN_COST, *self._in_step_costs(ranks, message_bytes)])

    def _in_step_costs(self, ranks: int, message_bytes: Sizes) -> Iterator[Cost]:
        """Yield the cost of each kind of all-reduce that was timed behind linears."""
        for kind in self._kinds:
            curves = [one for layer in REDUCED_LINEARS if (one := self._curve(kind, ranks, layer))]
            if curves:
                yield sum_costs(one.within(message_bytes) for one in curves).scaled(1 / len(curves))

    def hop(self, message_bytes: Sizes, *, across: bool = False) -> Cost:
        """Cost of a message between ranks, in one host or across two.

        Measured within a host where possible, else assumed.
        """
        fabric = self._query.interconnect
        if across:
            usual_rate = estimate.NODE_BYTES_PER_SECOND.value
            return modelled_hop_cost(message_bytes, fabric, estimate.NODE_HOP_SECONDS, usual_rate)
        measured, rate = self._ping_pong_curve(), self._link_rate
        if measured:
            cost = measured.at(message_bytes)
            if not fabric.changes_link:
                return cost
            return rescale_to_link(measured, cost, fabric, rate or measured_link_rate(measured, HOP_OP, 2))
        if rate is None:
            raise MissingMeasurementError(
                f"no hop between ranks was measured on {self._profile.name}: run suites/bench_point_to_point.py"
            )
        inside = fabric if fabric.changes_link else UNCHANGED_LINKS
        return modelled_hop_cost(message_bytes, inside, estimate.HOP_SECONDS, rate)

    @property
    def _link_rate(self) -> float | None:
        """Datasheet rate of the GPUs' own link, in bytes/s and one direction."""
        return self._profile.gpu.link_bytes_per_second if self._profile.gpu else None

    def _within_node(self, ranks: int, message_bytes: Sizes) -> Cost:
        """Cost in one host: the fastest all-reduce that the backend allows."""
        curves = self._curves(ranks)
        if not curves:
            raise MissingMeasurementError(self._missing_ranks_text(ranks))
        cost = fastest(self._all_reduce_cost(curve, ranks, message_bytes) for curve in curves)
        if cost.unknown.all():
            most = format_bytes(max(one.largest for one in curves))
            raise MissingMeasurementError(
                f"an all-reduce of {format_bytes(int(np.min(message_bytes)))} over {ranks} ranks: the largest measured "
                f"is {most}; plan for a smaller batch"
            )
        return cost

    def _all_reduce_cost(self, curve: CostCurve, ranks: int, message_bytes: Sizes) -> Cost:
        """Cost of one kind of all-reduce, rescaled to a hypothetical link in the host."""
        fabric, cost = self._query.interconnect, curve.within(message_bytes)
        if not fabric.changes_link:
            return cost
        rate = self._link_rate or measured_link_rate(curve, "all_reduce", ranks)
        return rescale_to_link(curve, cost, fabric, rate)

    def _across_nodes(self, ranks: int, nodes: int, message_bytes: Sizes) -> Cost:
        """Cost within each host, then between hosts for each GPU's part of the message.

        Bytes between hosts are a ring's. Latency counts 2 ceil(log2(nodes)) messages.
        """
        fabric = self._query.interconnect
        inside = ranks // nodes
        first = self._within_node(inside, message_bytes) if inside > 1 else Cost(0.0, 0.0, 0.0)
        part = message_bytes / inside
        moving = (
            TRAFFIC["all_reduce"].sent_factor(nodes)
            * part
            / available_rate(fabric, estimate.NODE_BYTES_PER_SECOND.value)
        )
        turns, waits = 2 * ceil(log2(nodes)), latency_range(fabric, estimate.NODE_HOP_SECONDS)
        seconds, low, high = (
            pick(first) + moving + turns * wait for pick, wait in zip(COST_FIELDS, waits, strict=True)
        )
        return Cost(seconds, low, high, first.half_width, _modelled(first))

    @property
    def _kinds(self) -> Sequence[str]:
        """Kinds of all-reduces that the query allows."""
        return ("custom", "nccl", "other") if self._query.backend == "best" else (self._query.backend,)

    def _curves(self, ranks: int) -> list[CostCurve]:
        return [one for kind in self._kinds if (one := self._curve(kind, ranks))]

    def _curve(self, kind: str, ranks: int, behind: str | None = None) -> CostCurve | None:
        """Costs of one kind, in the first requested launch mode that was measured.

        Args:
            kind: kind of all-reduce.
            ranks: ranks that take part.
            behind: linear before each call; None for calls back to back.
        """
        for launch in self._query.launches:
            who = self._implementation if kind == "custom" else ""
            key = "all_reduce", kind, who, ranks, launch, behind
            if found := self._profile.curve(key, partial(self._points, kind, ranks, launch, behind)):
                return found
        return None

    def _points(self, kind: str, ranks: int, launch: str, behind: str | None) -> Iterator[tuple[int, Measurement]]:
        for one in self._profile.all_reduces.get((ranks, launch, behind), ()):
            if self._is_of_kind(one, kind) and one.case.message_bytes:
                yield one.case.message_bytes, one

    def _is_of_kind(self, one: Measurement, kind: str) -> bool:
        family = FAMILIES.get(one.case.implementation, "other")
        if kind == "custom" and family == "custom" and one.framework:
            return one.framework == self._implementation
        return family in BACKEND_FAMILIES.get(kind, (kind,))

    def _missing_ranks_text(self, ranks: int) -> str:
        counts = sorted({found for found, _, behind in self._profile.all_reduces if behind is None})
        backend = "" if self._query.backend == "best" else f" by {self._query.backend}"
        known = f"there are those of {', '.join(map(str, counts))}" if counts else "there are none"
        return (
            f"no all-reduce{backend} over {ranks} ranks on {self._profile.name}: {known}; none is guessed from "
            "another count"
        )

    def _ping_pong_curve(self) -> CostCurve | None:
        """Cost over bytes of one way of a ping-pong, from call to arrival."""
        found = self._profile.measurements_by_op.get(HOP_OP, ())

        def points() -> Iterator[tuple[int, Measurement]]:
            for one in found:
                if one.case.message_bytes and one.case.is_back_to_back:
                    yield one.case.message_bytes, one

        return self._profile.curve(("hop",), points, partial(self._profile.cost, factor=0.5))
