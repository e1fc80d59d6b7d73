"""Probe of shares: the layers, or the LM head, that one rank computes.

Shares run in the same passes as whole models: compared cases lie close in time. One run times all parts of a share: a
layer's visit keeps the head's samples for the next visit. A sample is the slowest rank's time. Ranks that share a layer
wait for each other at each of its messages. So the slowest of them counts separately in each stretch between two
messages: no later stretch makes up for a late one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from statistics import fmean, median
from typing import Any, NamedTuple

import pytest

from kernels.decoder_layer import RTOL, layer_kernel
from kernels.registry import select_linear
from kernels.timing.device import Device, SamplingLimits, current_device
from kernels.timing.host import MAX_ROUNDS, contention, cpu_seconds
from specs import memory
from specs.layer import HEAD_SHARE, LAYER_SHARE, SHARE_PARTS, layer_shape
from specs.measurement import Case, Measurement
from specs.parallel import Deployment, Split
from specs.roofline import Work
from specs.units import ITEMSIZE
from suites.case import CaseState, StepRunConfig
from suites.decoder import workload
from suites.decoder.reference import logits_rtol
from suites.decoder.workload import StepWorkload
from suites.options import Options, read_options
from suites.probes.collective import plan_run_ranks
from suites.probes.model import COLD_CACHE_MULTIPLE, MAX_STEPS, StepBench, step_cases, why_no_kernels, why_not_split
from suites.workers.launcher import RankPlan
from suites.workers.pool import WorkerPool
from suites.workers.process import Message

# A share: the computation of one rank between two messages, and the number of ranks that compute at once


class Share(NamedTuple):
    """Share of a model that one rank computes; strings and integers only, for JSON.

    Attributes:
        model: slug of the model.
        layers: layers kept of the model; they set the size of its vocabulary.
        tp: ranks that share every layer.
        ranks: ranks that compute at once, one share each; the remaining ranks are idle.
        sequences: sequences of the microbatch, each of which adds a token.
        context: tokens in each sequence's cache, including the new one.
        part: one of `specs.layer.SHARE_PARTS`.
    """

    model: str
    layers: int
    tp: int
    ranks: int
    sequences: int
    context: int
    part: str

    def __str__(self) -> str:
        return f"{self.step}-tp{self.tp}-{self.ranks}atonce-{self.part}"

    @property
    def step(self) -> StepWorkload:
        """Workload of the same step on a whole model."""
        return StepWorkload(self.model, self.layers, self.sequences, self.sequences, self.context)

    def deployment(self, stages: int) -> Deployment:
        """Deployment with the given number of stages; each rank holds the last stage."""
        return Deployment(self.tp, stages, schedule="sync" if stages > 1 else "tp")


# Axes of shares: those of the steps that whole models run


def add_shares(metafunc: pytest.Metafunc) -> None:
    """Parametrise `share` and `how`: rivals adjacent, then the parts of one share.

    Args:
        metafunc: pytest's view of the bench function.
    """
    options, device = read_options(metafunc.config), current_device()
    cases = list(share_cases(options, device, plan_run_ranks(metafunc, device.kind)))
    ids = [f"{share}-{how.dtype}-{how.implementation}" for share, how in cases]
    metafunc.parametrize(("share", "how"), cases, ids=ids)


def share_cases(options: Options, device: Device, ranks: RankPlan) -> list[tuple[Share, StepRunConfig]]:
    """Unique cases of the deployments that can run; whole models report the rest."""
    return list(dict.fromkeys(_all_share_cases(options, device, ranks)))


def _all_share_cases(options: Options, device: Device, ranks: RankPlan) -> Iterator[tuple[Share, StepRunConfig]]:
    """Cases with rivals adjacent; several deployments may have a share in common."""
    found: dict[Share, list[StepRunConfig]] = {}
    for deployment, part, how in step_cases(options, device, ranks.count, decode=True):
        if deployment.why_not(ranks.count, part.batch):
            continue
        for sequences in deployment.micro_batch_sizes(part.batch):
            for name in SHARE_PARTS:
                share = Share(
                    part.model, part.layers, deployment.tp, deployment.busy_ranks, sequences, part.context, name
                )
                found.setdefault(share, []).append(how)
    for share, hows in found.items():
        for how in hows:
            yield share, how


# A case of a part of a share


@dataclass(kw_only=True)
class ShareCaseState(CaseState):
    """Case of a layer, or of the end of the last stage, on several ranks at once.

    `skews`: seconds between the fastest and the slowest rank, per sample.
    """

    share: Share
    deployment: Deployment
    backend: str
    skews: list[float] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Short description for reasons."""
        return f"{self.share} by {self.case.implementation}"

    @property
    def timing_key(self) -> tuple[Share, str, str]:
        """Key that the parts of a share have in common: one run times them all."""
        return self.share._replace(part=""), self.case.dtype, self.case.implementation

    @property
    def calls_per_step(self) -> int:
        """Calls of this part in a step, which runs all layers of a rank and one head."""
        return (
            self.deployment.split(self.share.step.scaled_model).stage_layers()[-1]
            if self.share.part == LAYER_SHARE
            else 1
        )

    def to_json(self) -> dict[str, Any]:
        """Task that ranks run, for JSON."""
        return {
            "ranks": self.share.ranks,
            "deployment": asdict(self.deployment),
            **self.share.step.to_json(),
            "dtype": self.case.dtype,
            "implementation": self.case.implementation,
            "backend": self.backend,
        }

    def measurement(self) -> Measurement:
        """Measurement so far, with the skew between ranks."""
        skew = median(self.skews) if self.skews and self.share.ranks > 1 else None
        return replace(super().measurement(), skew_seconds=skew)

    def restore(self, before: Measurement) -> None:
        """Restore the samples of an interrupted run."""
        super().restore(before)
        self.skews = [] if before.skew_seconds is None else [before.skew_seconds]


def plan_share_case(
    name: str, device: Device, ranks: RankPlan, share: Share, question: str, how: StepRunConfig
) -> ShareCaseState:
    """Plan the case of a part of a share."""
    impossible = why_not_split(share.deployment(1), share.step)
    shape = {"tokens": share.sequences, "batch": share.sequences, "context": share.context}
    of_layer, work, n, k, cold, laid = share.part == LAYER_SHARE, Work(), None, None, False, share.deployment(1)
    if not impossible:
        laid, cold = _choose_stages(device, ranks, share, how.dtype)
        split = laid.split(share.step.scaled_model)
        if of_layer:
            work = layer_kernel("torch", layer_shape(split), **shape).work(dtype=how.dtype, **shape)
        else:
            n, k = split.linears[share.part].n, split.linears[share.part].k
            work = select_linear("torch", share.sequences).work(tokens=share.sequences, n=n, k=k, dtype=how.dtype)
    case = Case(
        name=name,
        question=question,
        op=LAYER_SHARE if of_layer else "linear",
        implementation=how.implementation,
        kernel=f"{how.implementation}_{LAYER_SHARE if of_layer else 'linear'}",
        dtype=how.dtype,
        flops=work.flops,
        hbm_bytes=work.hbm_bytes,
        model=share.model,
        layer=share.part,
        tp=share.tp,
        pp=1,
        tokens=share.sequences,
        n=n,
        k=k,
        cache="cold" if cold else "unknown",
        ranks=share.ranks,
        context=share.context if of_layer else None,
        batch=share.sequences if of_layer else None,
    )
    entry = ShareCaseState(case=case, share=share, deployment=laid, backend=how.backend)
    entry.not_run = ranks.why_not() or impossible or _why_not(device, ranks, entry, how)
    entry.need_bytes = 0 if impossible else workload.need_bytes(laid, share.step, how.dtype)
    return entry


def _why_not(device: Device, ranks: RankPlan, entry: ShareCaseState, how: StepRunConfig) -> str | None:
    """Return one line on why the case cannot run here, or None."""
    laid, step = entry.deployment, entry.share.step
    if reason := why_no_kernels(device, laid, how, step):
        return reason
    return workload.why_too_large(
        laid, step, how.dtype, int(workload.MEMORY_SHARE * workload.free_bytes(device, ranks.world))
    )


def _choose_stages(device: Device, ranks: RankPlan, share: Share, dtype: str) -> tuple[Deployment, bool]:
    """Deployment whose last stage each rank holds, and whether its weights are cold.

    Choose the most stages that leave weights cold. If even all layers do not, the ranks that compute at once stream the
    model once between them, as in a whole model: ranks of a CPU share its caches.
    """
    model = share.step.scaled_model
    sharing = min(share.ranks, ranks.world.local_ranks) if ranks.kind == "cpu" else 1
    choices = [share.deployment(stages) for stages in range(model.layers, 0, -1)]
    for laid in choices:
        if sharing * _streamed_bytes(laid.split(model), dtype) >= COLD_CACHE_MULTIPLE * device.llc_bytes:
            return laid, True
    return share.deployment(min(model.layers, max(1, share.ranks // share.tp))), False


def _streamed_bytes(split: Split, dtype: str) -> int:
    return memory.stage_read_bytes(split, split.pp - 1, ITEMSIZE[dtype])


PATIENCE = {"cpu": SamplingLimits(5e-3, 0.1, 0.05, 30.0), "cuda": SamplingLimits(1e-3, 0.05, 0.005, 60.0)}


StretchSeconds = Sequence[Sequence[float]]
"""Seconds of each stretch, for each computing rank."""


class TimedShare(NamedTuple):
    """Samples of one run of a share.

    Attributes:
        calls: steps that a sample spans.
        samples: (slowest rank's seconds, skew between ranks in seconds) of each sample, by part.
        clock: name of the clock.
        load: load of other processes meanwhile.
    """

    calls: int
    samples: dict[str, list[tuple[float, float]]]
    clock: str
    load: dict[str, float] | None


class StepAndShareBench(StepBench):
    """Visits to whole models and to shares.

    Args:
        workers: all ranks.
        ranks: number and device kind of the ranks.
        entries: all cases.
    """

    def __init__(self, workers: WorkerPool, ranks: RankPlan, entries: Sequence[Any]) -> None:
        super().__init__(workers, ranks, entries)
        self._share_patience = PATIENCE[ranks.kind]
        self._errors: dict[object, Sequence[Message]] = {}
        self._once: dict[object, float] = {}
        self._pending_samples: dict[tuple[object, str], list[TimedShare]] = {}

    def ensure_started(self) -> None:
        """Start the ranks unless they run, and drop errors and samples of earlier ranks.

        Raises:
            RankLostError: a rank does not arrive.
        """
        if not self._workers.is_running:
            self._errors.clear()
            self._pending_samples.clear()
        super().ensure_started()

    def visit(self, entry: CaseState, share: float) -> tuple[float, ...]:
        """Samples of one visit; none if a result is wrong."""
        if not isinstance(entry, ShareCaseState):
            return super().visit(entry, share)  # type: ignore[arg-type]
        self.ensure_started()
        kept = self._pending_samples.get((entry.timing_key, entry.share.part))
        if not kept:
            told = {**entry.to_json(), "label": self._label(entry)}
            self._workers.run_command("share", told, f"setting up {entry.title}")
        if not self._is_verified(entry) and not self._verify_share(entry):
            return ()
        walked = kept.pop(0) if kept else self._time_share(entry, share)
        found = walked.samples[entry.share.part]
        entry.clock, self._in_a_row = walked.clock, 0
        entry.calls = walked.calls * entry.calls_per_step
        entry.record_load(walked.load)
        entry.skews += [walked.calls * skew for _, skew in found]
        return tuple(seconds / entry.calls_per_step for seconds, _ in found)

    def _verify_share(self, entry: ShareCaseState) -> bool:
        """Return whether this part of every rank's share is right."""
        if entry.timing_key not in self._errors:
            self._errors[entry.timing_key] = self._workers.run_command("prove", {}, f"checking {entry.title}")
        part, dtype = entry.share.part, entry.case.dtype
        replies = [{"error": reply["errors"].get(part)} for reply in self._errors[entry.timing_key]]
        return self._record_check(entry, replies, RTOL[dtype] if part == LAYER_SHARE else logits_rtol(dtype, 0))

    def _time_share(self, entry: ShareCaseState, share: float) -> TimedShare:
        """Samples of all parts of a share; the head's are kept for its own visit.

        A first visit times one step. If a visit has time for no more, that step is the sample.
        """
        patience, before = self._share_patience, cpu_seconds(self._workers.processes)
        first = None if entry.timing_key in self._once else self._time_steps(entry, 1)
        if first:
            self._once[entry.timing_key] = first[1]
        once = self._once[entry.timing_key]
        calls = min(MAX_STEPS, ceil(patience.span_seconds / once))
        rounds = max(1, min(MAX_ROUNDS, MAX_STEPS // calls, int(share * patience.visit_seconds / (calls * once))))
        warm = int(once < patience.visit_seconds)  # loading is a small part of a longer step
        clock, _, seconds = first if first and not warm else self._time_steps(entry, warm + calls * rounds)
        samples = {part: _samples(of[warm:], calls, entry.share.tp) for part, of in seconds.items()}
        load = contention(before, cpu_seconds(self._workers.processes)) if self._kind == "cpu" else None
        walked = TimedShare(calls, samples, clock, load)
        if entry.share.part == LAYER_SHARE:
            self._pending_samples.setdefault((entry.timing_key, HEAD_SHARE), []).append(walked)
        return walked

    def _time_steps(self, entry: ShareCaseState, steps: int) -> tuple[str, float, dict[str, list[StretchSeconds]]]:
        """Clock, seconds of a whole step, and stretches of each step by part."""
        replies = self._workers.run_command("walk", {"steps": steps}, f"timing {entry.title}")[: entry.share.ranks]
        seconds: dict[str, list[StretchSeconds]] = {
            part: list(zip(*(reply["seconds"][part] for reply in replies), strict=True)) for part in SHARE_PARTS
        }
        return str(replies[0]["clock"]), max(reply["step_seconds"] for reply in replies), seconds


def _samples(steps: Sequence[StretchSeconds], calls: int, tp: int) -> list[tuple[float, float]]:
    """Seconds per step and skew of each sample of `calls` steps."""
    return [_sample(steps[start : start + calls], tp) for start in range(0, len(steps), calls)]


def _sample(steps: Sequence[StretchSeconds], tp: int) -> tuple[float, float]:
    groups = [slice(first, first + tp) for first in range(0, len(steps[0]), tp)]
    waited = [fmean(sum(map(max, zip(*step[group], strict=True))) for step in steps) for group in groups]
    own = [fmean(map(sum, ranks)) for ranks in zip(*steps, strict=True)]
    return max(waited), max(own) - min(own)
