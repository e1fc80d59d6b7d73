"""A case of one kernel on one device."""

from dataclasses import dataclass, field

from kernels.kernel import Kernel
from kernels.timing.device import COLD_FACTOR, Device
from kernels.timing.pool import Ruler
from specs.layer import LayerPart
from specs.measurement import Case, Measurement
from specs.parallel import Shard
from suites.entry import Entry
from suites.how import How


@dataclass(kw_only=True)
class KernelEntry(Entry):
    """A kernel at a shape. `arch` is the device's; `weight_bytes` is what a call streams."""

    kernel: Kernel
    shape: dict[str, int] = field(default_factory=dict)
    arch: str = "cpu"
    weight_bytes: int = 0

    def measurement(self) -> Measurement:
        """What has been measured so far, with what the kernel chose."""
        self.configuration = self._configuration()
        return super().measurement()

    def _configuration(self) -> str | None:
        """What the kernel says it chose. Only one that was called in this process knows."""
        if self.kernel.configuration is None or not self.turn:
            return self.configuration
        try:
            return self.kernel.configuration(arch=self.arch, dtype=self.case.dtype, **self.shape)
        except Exception as error:  # a label must not cost the samples
            return f"not told: {type(error).__name__}: {error}".split("\n")[0]


def kernel_entry(
    name: str,
    device: Device,
    kernel: Kernel,
    question: str,
    how: How,
    part: Shard | LayerPart | None,
    shape: dict[str, int],
) -> KernelEntry:
    """The case of a kernel at a shape, with its work and the copies that it rotates through."""
    work, ruler = kernel.work(dtype=how.dtype, **shape), Ruler()
    kernel.inputs(ruler, dtype=how.dtype, **shape)
    copies = device.cold_copies(ruler.weight_bytes) if how.cache == "cold" else 1
    truly_cold = copies * ruler.weight_bytes >= 0.9 * COLD_FACTOR * device.llc_bytes
    cache = how.cache if how.cache == "hot" or truly_cold or kernel.op == "launch" else f"rotated-{copies}"
    if not ruler.weight_bytes and kernel.op != "launch":
        cache = "hot"  # what it reads was just written, and is the same in every call
    prompt = kernel.op == "attention" and "batch" not in shape  # one sequence, which attends to itself
    case = Case(
        name=name,
        question=question,
        op=kernel.op,
        implementation=how.implementation,
        kernel=kernel.name,
        dtype=how.dtype,
        flops=work.flops,
        hbm_bytes=work.hbm_bytes,
        wire_bytes_sent_per_rank=work.wire_bytes_sent_per_rank,
        model=part.model if part else None,
        layer=part.layer if part else None,
        tp=part.tp if part else None,
        pp=part.pp if part else None,
        tokens=shape.get("tokens", shape.get("batch")),
        n=shape.get("n"),
        k=shape.get("k"),
        cache=cache,
        launch=how.launch,
        context=getattr(part, "context", shape["tokens"] if prompt else shape.get("context")),
        batch=getattr(part, "batch", 1 if prompt else shape.get("batch")),
        per_layer=getattr(part, "per_layer", None),
    )
    return KernelEntry(
        case=case,
        kernel=kernel,
        shape=shape,
        arch=device.arch,
        copies=copies,
        weight_bytes=ruler.weight_bytes,
        need_bytes=ruler.weight_bytes + 10 * ruler.other_bytes,  # float64 parts and whole of the reference beside
        not_run=why_not(kernel, how, device),
    )


def why_not(kernel: Kernel, how: How, device: Device) -> str | None:
    """One line on why this cannot run here; None if it can."""
    if how.launch == "graph" and device.kind != "cuda":
        return "launch graph: a CUDA graph needs a GPU, and torch sees none; use --launch eager"
    return kernel.why_not(device.arch, how.dtype)
