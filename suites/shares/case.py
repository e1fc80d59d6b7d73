"""A case of a part of a rank's share."""

from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from kernels.decoder_layer import layer
from kernels.registry import linear
from kernels.timing.device import Device
from specs import memory
from specs.layer import LAYER_SHARE, layer_shape
from specs.measurement import Case, Measurement
from specs.parallel import Deployment, Split
from specs.roofline import Work
from specs.units import ITEMSIZE
from suites.entry import Entry
from suites.how import StepHow
from suites.shares.part import Share
from suites.steps import room
from suites.steps.case import COLD_CACHES, no_kernels, not_cut
from suites.world.ranks import Ranks


@dataclass(kw_only=True)
class ShareEntry(Entry):
    """A layer, or what ends the last stage, on so many ranks at once; `skews` are those of the samples."""

    share: Share
    laid: Deployment
    backend: str
    skews: list[float] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Short, for reasons."""
        return f"{self.share} by {self.case.implementation}"

    @property
    def walk(self) -> tuple[Share, str, str]:
        """What the parts of a share have in common: they are timed in one walk."""
        return self.share._replace(part=""), self.case.dtype, self.case.implementation

    @property
    def calls_a_step(self) -> int:
        """Of this part: a step is all layers that a rank has, and one end."""
        return self.laid.split(self.share.step.scaled).stage_layers()[-1] if self.share.part == LAYER_SHARE else 1

    def told(self) -> dict[str, Any]:
        """What ranks are asked to run, for JSON."""
        return {
            "ranks": self.share.ranks,
            "deployment": asdict(self.laid),
            **self.share.step._asdict(),
            "dtype": self.case.dtype,
            "implementation": self.case.implementation,
            "backend": self.backend,
        }

    def measurement(self) -> Measurement:
        """What has been measured so far, with the skew between ranks."""
        skew = median(self.skews) if self.skews and self.share.ranks > 1 else None
        return replace(super().measurement(), skew_seconds=skew)

    def take(self, before: Measurement) -> None:
        """Go on from what an interrupted run has measured."""
        super().take(before)
        self.skews = [] if before.skew_seconds is None else [before.skew_seconds]


def share_entry(name: str, device: Device, ranks: Ranks, share: Share, question: str, how: StepHow) -> ShareEntry:
    """The case of a part of a share."""
    impossible = not_cut(share.laid(1), share.step)
    shape = {"tokens": share.sequences, "batch": share.sequences, "context": share.context}
    of_layer, work, n, k, cold, laid = share.part == LAYER_SHARE, Work(), None, None, False, share.laid(1)
    if not impossible:
        laid, cold = _cut(device, ranks, share, how.dtype)
        split = laid.split(share.step.scaled)
        if of_layer:
            work = layer("torch", layer_shape(split), **shape).work(dtype=how.dtype, **shape)
        else:
            n, k = split.linears[share.part].n, split.linears[share.part].k
            work = linear("torch", share.sequences).work(tokens=share.sequences, n=n, k=k, dtype=how.dtype)
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
    entry = ShareEntry(case=case, share=share, laid=laid, backend=how.backend)
    entry.not_run = ranks.why_not() or impossible or _why_not(device, ranks, entry, how)
    entry.need_bytes = 0 if impossible else room.need_bytes(laid, share.step, how.dtype)
    return entry


def _why_not(device: Device, ranks: Ranks, entry: ShareEntry, how: StepHow) -> str | None:
    """One line on why this cannot run here; None if it can."""
    laid, step = entry.laid, entry.share.step
    if reason := no_kernels(device, laid, how, step):
        return reason
    return room.why_too_large(laid, step, how.dtype, int(room.SHARE * room.free_bytes(device, ranks.world)))


def _cut(device: Device, ranks: Ranks, share: Share, dtype: str) -> tuple[Deployment, bool]:
    """How many stages, of which each rank has the last; and whether a weight leaves the caches before its next use.

    As many as leave it cold. Where not even all layers do, those that compute at once stream the model once between
    them, as in the experiment: ranks of a CPU share its caches.
    """
    model = share.step.scaled
    sharing = min(share.ranks, ranks.world.local_ranks) if ranks.kind == "cpu" else 1
    choices = [share.laid(stages) for stages in range(model.layers, 0, -1)]
    for laid in choices:
        if sharing * _streamed(laid.split(model), dtype) >= COLD_CACHES * device.llc_bytes:
            return laid, True
    return share.laid(min(model.layers, max(1, share.ranks // share.tp))), False


def _streamed(split: Split, dtype: str) -> int:
    return memory.stage_read_bytes(split, split.pp - 1, ITEMSIZE[dtype])
