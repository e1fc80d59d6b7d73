"""A case of a whole model on all ranks."""

from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from comm.backends.all import BACKENDS
from kernels.decoder_layer import layer
from kernels.timing.device import Device
from specs import memory
from specs.errors import UserError
from specs.layer import layer_shape, why_no_layer
from specs.measurement import ITEMS, OP, Case, Measurement
from specs.parallel import Deployment
from specs.roofline import Work
from specs.units import ITEMSIZE
from suites.entry import Entry
from suites.how import StepHow
from suites.steps import room
from suites.steps.part import StepPart
from suites.steps.work import busiest
from suites.world.ranks import Ranks

COLD_CACHES = 4
"""A step streams each weight once; where all of them are so many last-level caches, next to nothing is left of it."""

Ledger = list[dict[str, float]]
"""For each stage the share of each of `specs.measurement.ITEMS`."""


@dataclass(kw_only=True)
class StepEntry(Entry):
    """A whole model under a deployment.

    `visits` are the ledgers of each pass, of which there are two where rivals are visited on the way out and back.
    """

    deployment: Deployment
    part: StepPart
    transport: str | None = None
    visits: list[list[Ledger]] = field(default_factory=list)
    timeline: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """Short, for reasons."""
        return f"{self.part} under {self.deployment} by {self.case.implementation}"

    def told(self) -> dict[str, Any]:
        """What ranks are asked to run, for JSON."""
        return {
            "deployment": asdict(self.deployment),
            **self.part._asdict(),
            "dtype": self.case.dtype,
            "implementation": self.case.implementation,
            "backend": self.case.backend,
        }

    def note(self, ledger: Ledger, timeline: dict[str, Any]) -> None:
        """Keep where a visit's time went: of timelines the newest, when caches and links are warm."""
        if len(self.visits) == len(self.seconds):
            self.visits.append([])
        self.visits[-1].append(ledger)
        self.timeline = timeline

    def measurement(self) -> Measurement:
        """What has been measured so far, with a ledger for each pass."""
        ledgers = [_mean(visits) for visits in self.visits[: len(self.seconds)]]
        return replace(super().measurement(), ledgers=ledgers or None, timeline=self.timeline, transport=self.transport)

    def take(self, before: Measurement) -> None:
        """Go on from what an interrupted run has measured."""
        super().take(before)
        self.visits = [[[dict(stage) for stage in ledger]] for ledger in before.ledgers or ()]
        self.timeline = dict(before.timeline) if before.timeline else None
        self.transport = before.transport


def _mean(visits: list[Ledger]) -> Ledger:
    return [{item: fmean(stage[item] for stage in stages) for item in ITEMS} for stages in zip(*visits, strict=True)]


def step_entry(
    name: str, device: Device, ranks: Ranks, deployment: Deployment, question: str, how: StepHow, part: StepPart
) -> StepEntry:
    """The case of a whole model under a deployment."""
    not_run = why_not(device, ranks, deployment, how, part)
    impossible = deployment.why_not(ranks.count, part.batch) or not_cut(deployment, part)
    vocab = None if impossible else part.scaled.vocab
    work = Work() if impossible else busiest(deployment, part, how.dtype)
    case = Case(
        name=name,
        question=question,
        op=OP,
        implementation=how.implementation,
        kernel=f"{how.implementation}_step",
        dtype=how.dtype,
        flops=work.flops,
        hbm_bytes=work.hbm_bytes,
        wire_bytes_sent_per_rank=work.wire_bytes_sent_per_rank,
        model=part.model,
        tp=deployment.tp,
        pp=deployment.pp,
        tokens=part.tokens,
        cache="unknown" if impossible else _temperature(device, ranks, deployment, part, how.dtype),
        ranks=ranks.count,
        context=part.context,
        batch=part.batch,
        replicas=deployment.replicas,
        schedule=deployment.schedule,
        micro_batches=deployment.micro_batches,
        partition=deployment.partition,
        layers=part.layers,
        vocab=vocab,
        backend=how.backend,
    )
    need = 0 if impossible else room.need_bytes(deployment, part, how.dtype)
    return StepEntry(case=case, deployment=deployment, part=part, need_bytes=need, not_run=not_run)


def why_not(device: Device, ranks: Ranks, deployment: Deployment, how: StepHow, part: StepPart) -> str | None:
    """One line on why this cannot run here; None if it can."""
    if reason := ranks.why_not():
        return reason
    if reason := deployment.why_not(ranks.count, part.batch) or not_cut(deployment, part):
        return reason
    if reason := _as_even(deployment, part):
        return reason
    if reason := no_kernels(device, deployment, how, part):
        return reason
    backend = BACKENDS[how.backend]
    if ranks.kind not in backend.kinds:
        return f"{backend} runs on {' and '.join(sorted(backend.kinds))}, and these ranks are on {ranks.kind}"
    if reason := backend.why_not(ranks.world):
        return reason
    return room.why_too_large(deployment, part, how.dtype, int(room.SHARE * room.free_bytes(device, ranks.world)))


def not_cut(deployment: Deployment, part: StepPart) -> str | None:
    """Why the model cannot be cut so, whoever would run it."""
    if reason := why_no_layer(part.whole):
        return f"{reason}; choose a dense Llama: llama-3.2-1b, llama-3-8b, llama-3-70b"
    if deployment.pp > part.layers and part.layers < part.whole.layers:
        return (
            f"{part.model} cut down to {part.layers} of its {part.whole.layers} layers has none for each of "
            f"{deployment.pp} stages; choose --layers of at least {deployment.pp}, or a lower --pp"
        )
    try:
        deployment.split(part.scaled)
    except UserError as error:
        return str(error)
    return None


def _as_even(deployment: Deployment, part: StepPart) -> str | None:
    """Why a partition is not worth a case of its own: with few layers all deal them alike."""
    alike = replace(deployment, partition="even")
    dealt, even = (one.split(part.scaled).stage_layers() for one in (deployment, alike))
    if deployment == alike or dealt != even:
        return None
    counts = ", ".join(map(str, dealt))
    return (
        f"partition {deployment.partition} deals {counts} layers to the stages of {part.model} with {part.layers}, "
        "as even does; choose more --layers, or --partition even"
    )


def no_kernels(device: Device, deployment: Deployment, how: StepHow, part: StepPart) -> str | None:
    """Why an implementation has no layer for a micro-batch here."""
    sequences = deployment.micro_batch_sizes(part.batch)[0]
    shape = (
        {"tokens": sequences, "batch": sequences, "context": part.context}
        if part.decode
        else {"tokens": part.context, "batch": 1, "context": part.context}
    )
    try:
        one = layer(how.implementation, layer_shape(deployment.split(part.scaled)), **shape)
    except UserError as error:
        return str(error)
    return one.why_not(device.arch, how.dtype)


def _temperature(device: Device, ranks: Ranks, deployment: Deployment, part: StepPart, dtype: str) -> str:
    """Cold where what is streamed between two uses of a weight fills the caches: on a CPU all ranks share them."""
    split = deployment.split(part.scaled)
    read = [memory.stage_read_bytes(split, stage, ITEMSIZE[dtype]) for stage in range(deployment.pp)]
    streamed = min(read) * (ranks.world.local_ranks if ranks.kind == "cpu" else 1)
    return "cold" if streamed >= COLD_CACHES * device.llc_bytes else "unknown"
