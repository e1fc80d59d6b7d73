"""A case of one collective on all ranks."""

from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

from comm.backend import Backend
from comm.backends.all import BACKENDS
from comm.collective import Collective
from specs import traffic
from specs.errors import UserError
from specs.measurement import Case, Measurement
from specs.models import MODELS
from specs.parallel import Split
from specs.units import ITEMSIZE, binary_bytes
from suites.entry import Entry
from suites.how import RankHow
from suites.world.ranks import Ranks
from suites.world.task import Task

ALONE, WITH_RESIDUAL = "hidden", "hidden+residual"
"""What is shipped."""


class Shipment(NamedTuple):
    """What a model sends: `content` is hidden, or hidden+residual where an engine ships the residual apart."""

    model: str
    tp: int
    pp: int
    tokens: int
    content: str

    def __str__(self) -> str:
        return f"{self.model}-{self.tokens}tok-{self.content}"

    @property
    def elements(self) -> int:
        """Of the message: tokens x hidden, twice with the residual."""
        return self.tokens * MODELS[self.model].hidden * (2 if self.content == WITH_RESIDUAL else 1)


@dataclass(kw_only=True)
class RankEntry(Entry):
    """A collective at a message. `skews` are those of the samples; `pair` are the ranks that talk, if not all do."""

    task: Task
    pair: tuple[int, int] | None = None
    once: float | None = None
    skews: list[float] = field(default_factory=list)
    algorithm: str | None = None
    transport: str | None = None

    @property
    def title(self) -> str:
        """Short, for reasons."""
        return f"{self.case.op} {self.case.implementation} {binary_bytes(self.case.message_bytes or 0)}"

    def told(self) -> dict[str, Any]:
        """What ranks are asked to run, for JSON."""
        return self.task.told()

    def measurement(self) -> Measurement:
        """What has been measured so far, with skew and what the library told."""
        skew = median(self.skews) if self.skews else None
        return replace(super().measurement(), skew_seconds=skew, algorithm=self.algorithm, transport=self.transport)

    def take(self, before: Measurement) -> None:
        """Go on from what an interrupted run has measured."""
        super().take(before)
        self.skews = [] if before.skew_seconds is None else [before.skew_seconds]
        self.algorithm, self.transport = before.algorithm, before.transport
        self.copies = before.copies


def rank_entry(
    name: str,
    ranks: Ranks,
    collective: Collective,
    question: str,
    how: RankHow,
    part: Shipment | None,
    *,
    message_bytes: int,
    source: int = 0,
    target: int = 1,
) -> RankEntry:
    """The case of a collective at a message."""
    backend = BACKENDS[how.implementation]
    row = MODELS[part.model].hidden if part else 1
    elements = message_bytes // ITEMSIZE[how.dtype]
    pair = (source, target) if collective.pair else None
    case = Case(
        name=name,
        question=question,
        op=collective.op,
        implementation=how.implementation,
        kernel=f"{how.implementation}_{collective.op}",
        dtype=how.dtype,
        flops=0,
        hbm_bytes=0,
        wire_bytes_sent_per_rank=traffic.bytes_sent_per_rank(collective.op, ranks.count, message_bytes),
        model=part.model if part else None,
        layer=part.content if part else None,
        tp=part.tp if part else None,
        pp=part.pp if part else None,
        tokens=part.tokens if part else None,
        cache="hot",
        launch=how.launch,
        ranks=ranks.count,
        message_bytes=message_bytes,
        gap_seconds=how.gap_seconds,
        pair=f"{source}-{target}" if pair else None,
    )
    task = Task(collective.op, backend.name, how.dtype, elements, row, how.launch, how.gap_seconds, source, target)
    here = ranks.count if ranks.kind == "cpu" else 1
    entry = RankEntry(case=case, task=task, pair=pair, need_bytes=3 * message_bytes * here)
    entry.algorithm = backend.algorithm
    entry.not_run = _not_cut(part) or why_not(ranks, collective, backend, how, message_bytes)
    return entry


def _not_cut(part: Shipment | None) -> str | None:
    """Why the model cannot be cut over so many ranks."""
    try:
        if part:
            Split(MODELS[part.model], part.tp, part.pp)
    except UserError as error:
        return str(error)
    return None


def why_not(ranks: Ranks, collective: Collective, backend: Backend, how: RankHow, message_bytes: int) -> str | None:
    """One line on why this cannot run here; None if it can."""
    if reason := ranks.why_not():
        return reason
    if ranks.kind not in backend.kinds:
        return f"{backend} runs on {' and '.join(sorted(backend.kinds))}, and these ranks are on {ranks.kind}"
    if reason := backend.why_not(ranks.world):
        return reason
    if collective.method not in backend.methods:
        return f"{backend} has no {collective}"
    if how.dtype not in collective.rtol or how.dtype not in backend.dtypes:
        return f"{backend} adds up {', '.join(backend.dtypes)}, not {how.dtype}"
    if how.launch == "graph" and not (backend.graph and ranks.kind == "cuda"):
        return f"launch graph: {backend} cannot be captured in a CUDA graph; use --launch eager"
    if backend.most_bytes is not None and message_bytes > backend.most_bytes:
        return f"{backend} is made for messages up to {binary_bytes(backend.most_bytes)}"
    whole = ITEMSIZE[how.dtype] * (ranks.count if collective.divided else 1)
    if message_bytes % whole:
        parts = f", a part for each of {ranks.count} ranks" if collective.divided else ""
        return f"{message_bytes} bytes are no whole {how.dtype} elements{parts}; give a multiple of {whole}"
    return None
