"""Ceilings of a device: read bandwidth, copy bandwidth, and launch time.

The read ceiling streams memory and writes next to nothing, s = Σ buffer[elements]. Decode reads weights and writes next
to nothing, so its limit is the read ceiling and not the copy ceiling.
"""

import torch

from kernels.compile import LAUNCH_OPTIONS, TRITON_ARCHS, TritonVariant
from kernels.kernel import CHECK_ELEMENTS, Inputs, Kernel, TensorSource
from kernels.triton_utils import missing_triton_launch, tl, triton
from specs.roofline import Work
from specs.units import ITEMSIZE

# The copy ceiling: memory read and written at the same rate, out[elements] = source[elements].

COPY_RTOL = {"fp32": 0.0, "bf16": 0.0, "fp16": 0.0}
"""Largest accepted relative error: zero, since a copy is exact."""


def copy_work(*, elements: int, dtype: str) -> Work:
    """Return the work: read source once, write out once."""
    return Work(flops=0, hbm_bytes=2 * elements * ITEMSIZE[dtype])


def copy_inputs(source: TensorSource, *, elements: int, dtype: str) -> Inputs:
    """Return source[elements] and out[elements]."""
    return {"source": source.weight(elements, dtype=dtype), "out": source.output(elements, dtype=dtype)}


def run_copy(source: torch.Tensor, out: torch.Tensor) -> None:
    """Run one copy within the device."""
    out.copy_(source)


def copy_reference(source: torch.Tensor) -> torch.Tensor:
    """Return the source, which is exact."""
    return source


TORCH_COPY = Kernel(
    name="torch_copy",
    op="copy",
    implementation="torch",
    inputs=copy_inputs,
    run=run_copy,
    reference=copy_reference,
    work=copy_work,
    rtol=COPY_RTOL,
    archs=None,
)


# The minimum launch: an empty kernel. In a chain of empty kernels the time is the launch alone.

EMPTY_RTOL = {"fp32": 0.0}
"""Largest accepted relative error: zero, since `out` does not change."""
EMPTY_WARPS = 1


@triton.jit
def _empty(out: tl.tensor) -> None:
    pass


def empty_work(*, dtype: str) -> Work:  # noqa: ARG001 - every kernel's work has its dtype
    """Return work without bytes or flops."""
    return Work(flops=0, hbm_bytes=0)


def empty_inputs(source: TensorSource, *, dtype: str) -> Inputs:
    """Return x[1], and out[1] with the same value."""
    x = source.activation(1, dtype=dtype)
    return {"x": x, "out": x.clone()}


def run_empty(x: torch.Tensor, out: torch.Tensor) -> None:  # noqa: ARG001 - x is what out is held against
    """Run one program of one warp that returns at once."""
    _empty[(1,)](out, num_warps=EMPTY_WARPS, **LAUNCH_OPTIONS)


def empty_reference(x: torch.Tensor) -> torch.Tensor:
    """Return x, since out must stay unchanged."""
    return x.to(torch.float64)


def empty_variants(dtype: str) -> list[TritonVariant]:
    """Return the only compiled form."""
    return [TritonVariant(_empty, {"out": f"*{dtype}"}, {}, EMPTY_WARPS, 1)]


TRITON_EMPTY = Kernel(
    name="triton_empty",
    op="launch",
    implementation="triton",
    inputs=empty_inputs,
    run=run_empty,
    reference=empty_reference,
    work=empty_work,
    rtol=EMPTY_RTOL,
    archs=TRITON_ARCHS,
    missing=missing_triton_launch,
)


# The launch floor: time of one call with next to no work, out[1] = fmax(x[1], out[1]).
#
# Each call reads the `out` of the previous call, so calls cannot overlap. fmax ignores NaN, so the first call replaces
# the NaN in `out` by x, and every later call leaves x there.

LAUNCH_RTOL = {"fp32": 0.0, "bf16": 0.0, "fp16": 0.0}
"""Largest accepted relative error: zero, since the maximum is exact."""


def launch_work(*, dtype: str) -> Work:
    """Return the work: read x and out, write out, one element each; 1 comparison."""
    return Work(flops=1, hbm_bytes=3 * ITEMSIZE[dtype])


def launch_inputs(source: TensorSource, *, dtype: str) -> Inputs:
    """Return x[1] and out[1]."""
    return {"x": source.activation(1, dtype=dtype), "out": source.output(1, dtype=dtype)}


def run_launch(x: torch.Tensor, out: torch.Tensor) -> None:
    """Run one elementwise op on one element."""
    torch.fmax(x, out, out=out)


def launch_reference(x: torch.Tensor) -> torch.Tensor:
    """Return x in float64."""
    return x.to(torch.float64)


TORCH_LAUNCH = Kernel(
    name="torch_launch",
    op="launch",
    implementation="torch",
    inputs=launch_inputs,
    run=run_launch,
    reference=launch_reference,
    work=launch_work,
    rtol=LAUNCH_RTOL,
    archs=None,
)


# The read ceiling: memory read once, summed to one number.

READ_RTOL = {"fp32": 1e-2, "bf16": 1e-2}
"""Largest accepted relative error by dtype.

A sum of N normals is about √N, and loses about √f of that when a share f is unread: 1e-2 detects a share of 10^-4.
Summing costs fp32 under 1e-5, and rounding the result to bf16 2e-3. fp16 is excluded since √N exceeds its 65504.
"""

BLOCK_BYTES = 16384
READ_WARPS = 4


@triton.jit
def _read(buffer: tl.tensor, out: tl.tensor, elements: int, BLOCK: tl.constexpr) -> None:
    program = tl.program_id(0).to(tl.int64)  # int64: a buffer beyond the L2 of any GPU passes 2^31 bytes
    offset = program * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(buffer + offset, mask=offset < elements, other=0.0)
    tl.store(out + program, tl.sum(value.to(tl.float32)))


def read_work(*, elements: int, dtype: str) -> Work:
    """Return the work: read the buffer once, one addition per element.

    The written sums are at most 4 bytes per 16 KiB.
    """
    return Work(flops=elements, hbm_bytes=elements * ITEMSIZE[dtype])


def block_sums(buffer: torch.Tensor, size: int) -> torch.Tensor:
    """Return float64 sums of each `size` elements, slice by slice."""
    sums = []
    for part in buffer.split(CHECK_ELEMENTS):
        whole = part.numel() // size * size
        sums.append(part[:whole].view(-1, size).sum(dim=1, dtype=torch.float64))
        if whole < part.numel():
            sums.append(part[whole:].sum(dim=0, keepdim=True, dtype=torch.float64))
    return torch.cat(sums)


def torch_read_inputs(source: TensorSource, *, elements: int, dtype: str) -> Inputs:
    """Return buffer[elements] and out[1]."""
    return {"buffer": source.weight(elements, dtype=dtype), "out": source.output(1, dtype=dtype)}


def run_torch_read(buffer: torch.Tensor, out: torch.Tensor) -> None:
    """Run one sum over the whole buffer."""
    torch.sum(buffer.view(1, -1), dim=1, out=out)


def torch_read_reference(buffer: torch.Tensor) -> torch.Tensor:
    """Return the sum in float64."""
    return block_sums(buffer, 4096).sum(dim=0, keepdim=True)


def triton_read_inputs(source: TensorSource, *, elements: int, dtype: str) -> Inputs:
    """Return buffer[elements] and out[programs]; a program reads 16 KiB."""
    programs = triton.cdiv(elements * ITEMSIZE[dtype], BLOCK_BYTES)
    return {"buffer": source.weight(elements, dtype=dtype), "out": source.output(programs, dtype="fp32")}


def run_triton_read(buffer: torch.Tensor, out: torch.Tensor) -> None:
    """Run one sum for each 16 KiB.

    Each thread has eight 16-byte loads, all in flight before the first is used.
    """
    block = BLOCK_BYTES // buffer.element_size()
    _read[(out.numel(),)](buffer, out, buffer.numel(), BLOCK=block, num_warps=READ_WARPS, **LAUNCH_OPTIONS)


def triton_read_reference(buffer: torch.Tensor) -> torch.Tensor:
    """Return each program's sum in float64."""
    return block_sums(buffer, BLOCK_BYTES // buffer.element_size())


def read_variants(dtype: str) -> list[TritonVariant]:
    """Return the only compiled form."""
    signature = {"buffer": f"*{dtype}", "out": "*fp32", "elements": "i32"}
    return [TritonVariant(_read, signature, {"BLOCK": BLOCK_BYTES // ITEMSIZE[dtype]}, READ_WARPS, 1)]


TORCH_READ = Kernel(
    name="torch_read",
    op="read",
    implementation="torch",
    inputs=torch_read_inputs,
    run=run_torch_read,
    reference=torch_read_reference,
    work=read_work,
    rtol=READ_RTOL,
    archs=None,
)

TRITON_READ = Kernel(
    name="triton_read",
    op="read",
    implementation="triton",
    inputs=triton_read_inputs,
    run=run_triton_read,
    reference=triton_read_reference,
    work=read_work,
    rtol=READ_RTOL,
    archs=TRITON_ARCHS,
    missing=missing_triton_launch,
)
