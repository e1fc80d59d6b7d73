"""What messages between ranks take: all-reduces by whose kernel and how launched, and hops from stage to stage."""

from collections.abc import Iterator
from functools import partial
from math import ceil, log2

from reports.communication.reference import FAMILIES, HALVES
from reports.plan import assumed, imagined
from reports.plan.asked import Asked
from reports.plan.cost import FIGURES, Cost
from reports.plan.curve import Curve
from reports.plan.missing import MissingError
from reports.plan.system import System
from specs.measurement import Measurement
from specs.traffic import TRAFFIC
from specs.units import binary_bytes

HOP = "ping_pong"
OF_BACKEND = {"custom": ("custom",), "nccl": ("nccl", "rccl")}


class Messages:
    """What one implementation's messages take.

    Args:
        system: what was measured.
        asked: backend and links.
        implementation: of the linears: an engine's own kernel goes with its own linears.
    """

    def __init__(self, system: System, asked: Asked, implementation: str) -> None:
        self._system, self._asked, self._implementation = system, asked, implementation
        self._known: dict[tuple[int, int], Cost] = {}
        self._hops_known: dict[tuple[int, bool], Cost] = {}

    def all_reduce(self, ranks: int, message_bytes: int) -> Cost:
        """Over neighbouring ranks.

        Raises:
            MissingError: there is none for so many ranks, or for messages as large.
        """
        key = ranks, message_bytes
        if key not in self._known:
            nodes = self._asked.fabric.spans(ranks)
            self._known[key] = (
                self._within(ranks, message_bytes) if nodes == 1 else self._across(ranks, nodes, message_bytes)
            )
        return self._known[key]

    def hop(self, message_bytes: int, *, across: bool = False) -> Cost:
        """From a rank to another, in one host or across two: measured where it was, else by what is assumed."""
        key = message_bytes, across
        if key not in self._hops_known:
            self._hops_known[key] = self._hop(*key)
        return self._hops_known[key]

    def _hop(self, message_bytes: int, across: bool) -> Cost:
        fabric = self._asked.fabric
        if across:
            usual_rate = assumed.NODE_BYTES_PER_SECOND.value
            return imagined.over_link(message_bytes, fabric, assumed.NODE_HOP_SECONDS, usual_rate)
        measured, rate = self._hops(), self._link_rate
        if fabric.changes_link and measured:
            return imagined.reshaped(measured, message_bytes, fabric, rate or imagined.measured_rate(measured, HOP, 2))
        if measured:
            return measured.at(message_bytes)
        if rate is None:
            raise MissingError(
                f"no hop between ranks was measured on {self._system.name}: run suites/bench_point_to_point.py"
            )
        inside = fabric if fabric.changes_link else imagined.AS_IT_IS
        return imagined.over_link(message_bytes, inside, assumed.HOP_SECONDS, rate)

    @property
    def _link_rate(self) -> float | None:
        """Of the GPUs' own link by its datasheet, in bytes a second and one direction."""
        return self._system.gpu.link_bytes_per_second if self._system.gpu else None

    def _within(self, ranks: int, message_bytes: int) -> Cost:
        """In one host: the fastest of what the backend allows."""
        curves = self._curves(ranks)
        fitting = [one for one in curves if one.within(message_bytes)]
        if not curves:
            raise MissingError(self._no_ranks(ranks))
        if not fitting:
            most = binary_bytes(max(one.sizes[-1] for one in curves))
            raise MissingError(
                f"an all-reduce of {binary_bytes(message_bytes)} over {ranks} ranks: the largest measured is {most}; "
                "plan for a smaller batch"
            )
        return min((self._one(curve, ranks, message_bytes) for curve in fitting), key=lambda cost: cost.seconds)

    def _one(self, curve: Curve, ranks: int, message_bytes: int) -> Cost:
        """One kind, on the link that is imagined if that is the one in the host."""
        fabric = self._asked.fabric
        if not fabric.changes_link:
            return curve.at(message_bytes)
        rate = self._link_rate or imagined.measured_rate(curve, "all_reduce", ranks)
        return imagined.reshaped(curve, message_bytes, fabric, rate)

    def _across(self, ranks: int, nodes: int, message_bytes: int) -> Cost:
        """Within each host, then between hosts for each GPU's part of the message, in a ring."""
        fabric = self._asked.fabric
        inside = ranks // nodes
        first = self._within(inside, message_bytes) if inside > 1 else Cost(0.0, 0.0, 0.0)
        part = message_bytes / inside
        moving = TRAFFIC["all_reduce"].sent(nodes) * part / imagined.rate(fabric, assumed.NODE_BYTES_PER_SECOND.value)
        turns, waits = 2 * ceil(log2(nodes)), imagined.latency(fabric, assumed.NODE_HOP_SECONDS)
        seconds, low, high = (pick(first) + moving + turns * wait for pick, wait in zip(FIGURES, waits, strict=True))
        return Cost(seconds, low, high, first.half, "modelled", first.cases)

    def _curves(self, ranks: int) -> list[Curve]:
        backend = self._asked.backend
        kinds = [backend] if backend != "best" else ["custom", "nccl", "other"]
        return [one for kind in kinds if (one := self._curve(kind, ranks))]

    def _curve(self, kind: str, ranks: int) -> Curve | None:
        """Of one kind, launched in the first of the ways asked for that there is."""
        for launch in self._asked.launches:
            who = self._implementation if kind == "custom" else ""
            key = "all_reduce", kind, who, ranks, launch
            if found := self._system.curve(key, partial(self._points, kind, ranks, launch)):
                return found
        return None

    def _points(self, kind: str, ranks: int, launch: str) -> Iterator[tuple[int, Measurement]]:
        for one in self._all_reduces():
            case = one.case
            if case.ranks == ranks and case.launch == launch and self._is(one, kind) and case.message_bytes:
                yield case.message_bytes, one

    def _all_reduces(self) -> Iterator[Measurement]:
        """Back to back, of elements that are as wide."""
        dtype = self._system.dtype
        alike = HALVES if dtype in HALVES else {dtype}
        for one in self._system.by_op.get("all_reduce", ()):
            if one.case.dtype in alike and not one.case.gap_seconds:
                yield one

    def _is(self, one: Measurement, kind: str) -> bool:
        family = FAMILIES.get(one.case.implementation, "other")
        if kind == "custom" and family == "custom" and one.framework:
            return one.framework == self._implementation
        return family in OF_BACKEND.get(kind, (kind,))

    def _no_ranks(self, ranks: int) -> str:
        counts = sorted({one.case.ranks for one in self._all_reduces()})
        backend = "" if self._asked.backend == "best" else f" by {self._asked.backend}"
        known = f"there are those of {', '.join(map(str, counts))}" if counts else "there are none"
        return (
            f"no all-reduce{backend} over {ranks} ranks on {self._system.name}: {known}; none is guessed from "
            "another count"
        )

    def _hops(self) -> Curve | None:
        """One way of a ping-pong: from the call to the message's being there."""
        found = self._system.by_op.get(HOP, ())

        def points() -> Iterator[tuple[int, Measurement]]:
            for one in found:
                if one.case.message_bytes and not one.case.gap_seconds:
                    yield one.case.message_bytes, one

        return self._system.curve(("hop",), points, factor=0.5)
