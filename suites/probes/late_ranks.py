"""Probe of an all-reduce in the step: behind each rank's own linear, and with one rank late on purpose.

In a step every rank enters an all-reduce when its own linear has ended, so the cost there is the wait for the latest
rank plus the transfer. A sample is the time from the end of a rank's linear to the end of its all-reduce: the mean over
the calls of a round, and over the ranks that are not delayed on purpose. So the mean time of the linear on all ranks
plus a sample is the time of a call. No difference of two runs is taken, so noise makes no sample negative; a sample
that is not positive ends the case with an error.

Each rank reads its own clock only. In each call the shortest time among the ranks is the latest rank's, which waits for
none: it counts as the transfer, and the rest of the other times as their wait. The skew of a sample is the mean wait.

A planted delay of the last rank checks the wait: the other ranks should wait all of it. The case keeps the share that
they waited, over the delay that the late rank really made. It is beyond one, or below, by what the linears' own times
differ between the ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, sqrt
from statistics import fmean
from typing import NamedTuple

import pytest

from comm.backends import BACKENDS
from comm.collectives import ALL_REDUCE
from kernels.linear import RTOL
from kernels.timing.device import SamplingLimits
from kernels.timing.host import MAX_ROUNDS, contention, cpu_seconds
from specs import traffic
from specs.errors import UserError
from specs.measurement import WAITED_SHARE, Case
from specs.models import find_model
from specs.parallel import Split
from specs.units import ITEMSIZE
from suites.axes import DEFAULT_MODELS
from suites.case import CollectiveRunConfig
from suites.options import Options, read_options
from suites.probes.collective import (
    DTYPES,
    LAUNCHES,
    CollectiveBench,
    CollectiveCaseState,
    backends_for,
    is_unavailable,
    plan_run_ranks,
    why_not,
)
from suites.workers.launcher import RankPlan
from suites.workers.process import CollectiveTask, Message

QUESTION = "late_ranks"
ROW_PARALLEL_LINEARS = ("o", "down")
"""Linears whose outputs the ranks of a layer add up."""


# An all-reduce in the step: the linear before it, and the delay of the last rank


class InStepAllReduce(NamedTuple):
    """All-reduce of a row-parallel linear's output; strings and numbers only, for JSON.

    Attributes:
        model: slug of the model.
        tp: ranks that share the linear.
        layer: one of `ROW_PARALLEL_LINEARS`.
        tokens: rows of the output, which is hidden wide.
        late_seconds: delay of the last rank behind its linear.
    """

    model: str
    tp: int
    layer: str
    tokens: int
    late_seconds: float

    def __str__(self) -> str:
        late = f"-late{1000 * self.late_seconds:g}ms" if self.late_seconds else ""
        return f"{self.model}-tp{self.tp}-{self.layer}-{self.tokens}tok{late}"

    @property
    def hidden(self) -> int:
        """Columns of the output."""
        return find_model(self.model).hidden

    @property
    def k(self) -> int:
        """Columns of a rank's input of the linear.

        Raises:
            UserError: the model cannot be split so, or has no such linear.
        """
        return Split(find_model(self.model), self.tp).linear(self.layer).k


# Axes: model, tp, linear, tokens; delays, and libraries innermost

TOKENS = {"cpu": (1, 16, 128), "cuda": (1, 16, 64, 256, 2048)}
"""Tokens of decode batches, and of a prefill chunk, by device kind."""
LATE_SECONDS = {"cpu": (0.0, 1e-3, 4e-3), "cuda": (0.0, 20e-6, 80e-6)}
"""Delays by device kind: none, and about one and four back-to-back all-reduces of a decode batch."""


def add_in_step_all_reduces(metafunc: pytest.Metafunc, kind: str) -> None:
    """Parametrise `part` and `how`.

    Args:
        metafunc: pytest's view of the bench function.
        kind: cpu or cuda.
    """
    cases = in_step_cases(read_options(metafunc.config), plan_run_ranks(metafunc, kind))
    ids = [f"{ALL_REDUCE.op}-{part}-{how}" for part, how in cases]
    metafunc.parametrize(("part", "how"), cases, ids=ids)


def in_step_cases(options: Options, ranks: RankPlan) -> list[tuple[InStepAllReduce, CollectiveRunConfig]]:
    """Cases of the options, or of the defaults; one rank has nobody to wait for, and says so once."""
    kind, backends = ranks.kind, backends_for(ALL_REDUCE.op, options)
    cases = [
        (InStepAllReduce(model, tp, layer, tokens, late), CollectiveRunConfig(dtype, launch, 0.0, backend.name))
        for model in options.model or DEFAULT_MODELS[kind]
        for tp in options.tp or (ranks.count,)
        for layer in ROW_PARALLEL_LINEARS
        if options.layer is None or layer in options.layer
        for tokens, dtype, launch, late in product(
            options.tokens or TOKENS[kind],
            options.dtype or DTYPES,
            options.launch or LAUNCHES[kind],
            options.late or LATE_SECONDS[kind],
        )
        for backend in backends
        if options.impl is not None
        or ranks.why_not()
        or not (is_unavailable(backend, ranks) or (launch == "graph" and not backend.graph))
    ]
    return cases[:1] if ranks.why_not() else cases


# Case: one all-reduce in the step, by one library


@dataclass(kw_only=True)
class InStepCaseState(CollectiveCaseState):
    """Case of an all-reduce behind a linear; `call_seconds` are of linear, delay and all-reduce together."""

    part: InStepAllReduce

    @property
    def title(self) -> str:
        """Short description for reasons."""
        return f"{self.case.op} {self.case.implementation} of {self.part}"

    @property
    def rtol(self) -> float:
        """Largest accepted error: each rank's part is rounded, and so is each sum of two parts."""
        return RTOL[self.case.dtype] * sqrt(self.case.ranks)


def plan_in_step_case(
    name: str, ranks: RankPlan, part: InStepAllReduce, question: str, how: CollectiveRunConfig
) -> InStepCaseState:
    """Plan the case of an all-reduce behind a linear."""
    backend, elements = BACKENDS[how.implementation], part.tokens * part.hidden
    message_bytes = elements * ITEMSIZE[how.dtype]
    impossible, k = _why_not_split(ranks, part), 0
    if not impossible:
        k = part.k
    case = Case(
        name=name,
        question=question,
        op=ALL_REDUCE.op,
        implementation=how.implementation,
        kernel=f"{how.implementation}_{ALL_REDUCE.op}",
        dtype=how.dtype,
        flops=0,
        hbm_bytes=0,
        wire_bytes_sent_per_rank=traffic.bytes_sent_per_rank(ALL_REDUCE.op, part.tp, message_bytes),
        model=part.model,
        layer=part.layer,
        tp=part.tp,
        pp=1,
        tokens=part.tokens,
        cache="cold",
        launch=how.launch,
        ranks=ranks.count,
        message_bytes=message_bytes,
        late_seconds=part.late_seconds,
    )
    task = CollectiveTask(
        *(ALL_REDUCE.op, backend.name, how.dtype, elements, part.hidden, how.launch, 0.0),
        k=k,
        late_seconds=part.late_seconds,
    )
    here = ranks.count if ranks.kind == "cpu" else 1
    entry = InStepCaseState(case=case, task=task, part=part, algorithm=backend.algorithm)
    entry.need_bytes = here * (3 * message_bytes + part.hidden * k * ITEMSIZE[how.dtype])
    entry.not_run = ranks.why_not() or impossible or why_not(ranks, ALL_REDUCE, backend, how, message_bytes)
    return entry


def _why_not_split(ranks: RankPlan, part: InStepAllReduce) -> str | None:
    """Return why these ranks cannot share the linear, or None."""
    if part.tp != ranks.count:
        return f"tp {part.tp} is {part.tp} ranks and this run has {ranks.count}; choose --ranks {part.tp}"
    try:
        _ = part.k
    except UserError as error:
        return str(error)
    return None


# Visits: samples of a case, from what the ranks report

PATIENCE = {"cpu": SamplingLimits(20e-3, 0.1, 0.05, 30.0), "cuda": SamplingLimits(1e-3, 30e-3, 0.01, 120.0)}
"""Limits by device kind: on a CPU a sample spans several delays."""
MAX_CALLS = 256
"""Calls in a sample; on a GPU each has up to three events."""
PROBE_CALLS = 2
"""Calls of a first estimate."""


class RoundTimes(NamedTuple):
    """Times of one round, over the ranks.

    Attributes:
        all_reduce: from the end of a rank's linear to the end of its all-reduce: mean over calls, and over the ranks
            that are not late.
        wait: mean part of that before the latest rank has come.
        delay: mean delay that the late rank made; 0 without one.
        call: time of a call with its linear, of the slowest rank.
    """

    all_reduce: float
    wait: float
    delay: float
    call: float


class CollectiveAndInStepBench(CollectiveBench):
    """Visits to collectives alone, and to all-reduces behind a linear."""

    def visit(self, entry: CollectiveCaseState, share: float) -> tuple[float, ...]:
        """Samples of one visit; none if a result is wrong."""
        if not isinstance(entry, InStepCaseState):
            return super().visit(entry, share)
        self.ensure_started()
        self._set_up_in_step(entry)
        if not self._is_verified(entry) and not self._check(entry):
            return ()
        if entry.call_seconds is None:
            entry.call_seconds = self._time_rounds(entry, PROBE_CALLS, 2)[-1].call
        calls, rounds = self._in_step_sample_size(entry, share)
        before = cpu_seconds(self._workers.processes)
        found = self._time_rounds(entry, calls, rounds + 1)[1:]  # the first round warms up
        load = contention(before, cpu_seconds(self._workers.processes)) if self._kind == "cpu" else None
        if not all(one.all_reduce > 0 for one in found):
            raise RuntimeError(f"{calls} all-reduces behind a linear took no time in a sample")
        if entry.part.late_seconds:
            waited = fmean(one.wait for one in found) / fmean(one.delay for one in found)
            load = {**(load or {}), WAITED_SHARE: waited}
        entry.record_load(load)
        entry.calls, self._in_a_row = calls, 0
        entry.call_seconds = min(one.call for one in found)
        entry.skews += [one.wait for one in found]
        return tuple(one.all_reduce for one in found)

    def _set_up_in_step(self, entry: InStepCaseState) -> None:
        told = {"task": entry.to_json(), "copies": 1, "label": self._label(entry)}
        replies = self._workers.run_command("draw", told, f"setting up {entry.title}")
        entry.copies = min(int(reply["copies"]) for reply in replies)

    def _in_step_sample_size(self, entry: InStepCaseState, share: float) -> tuple[int, int]:
        """Calls per sample, and number of samples.

        A graph replays the same copies of the weight, so it holds as many calls as there are copies.
        """
        limits, once = PATIENCE[self._kind], max(entry.call_seconds or 0.0, 1e-6)
        least = entry.copies if entry.case.launch == "graph" else PROBE_CALLS
        calls = min(MAX_CALLS, max(least, ceil(limits.span_seconds / once)))
        return calls, min(MAX_ROUNDS, max(1, int(share * limits.visit_seconds / (calls * once))))

    def _time_rounds(self, entry: InStepCaseState, calls: int, rounds: int) -> list[RoundTimes]:
        told = {"calls": calls, "rounds": rounds}
        replies = self._workers.run_command("sample_behind_linear", told, f"timing {entry.title}")
        entry.clock = str(replies[0]["clock"])
        by_round = zip(*(reply["rounds"] for reply in replies), strict=True)
        return [combine_ranks(ranks, late=entry.part.late_seconds > 0) for ranks in by_round]


def combine_ranks(ranks: Sequence[Message], *, late: bool) -> RoundTimes:
    """Combine the times of all ranks in one round; the last rank is late on purpose, if any is."""
    spans = [rank["all_reduces"] for rank in ranks]
    transfer = fmean(min(call) for call in zip(*spans, strict=True))
    waiting = spans[:-1] if late else spans
    mean = fmean(map(fmean, waiting))
    delay = fmean(ranks[-1]["delays"]) if late else 0.0
    return RoundTimes(mean, mean - transfer, delay, max(rank["call_seconds"] for rank in ranks))
