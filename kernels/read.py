"""The read ceiling: how fast memory can be streamed when nothing is written, s = Σ buffer[elements].

Decode reads weights and writes next to nothing, so this and not a copy is the limit it is held against.
"""

import torch

from kernels.compile import OPTIONS, TRITON_ARCHS, Variant
from kernels.kernel import SLICE, Draw, Inputs, Kernel
from kernels.triton_utils import missing_triton_launch, tl, triton
from specs.roofline import Work
from specs.units import ITEMSIZE

RTOL = {"fp32": 1e-2, "bf16": 1e-2}
"""A sum of N normals is about √N and loses about √f of that when a share f is unread: 1e-2 stands for one in 10^4.

Summing costs fp32 under 1e-5 and rounding the result to bf16 2e-3; fp16 is out since √N passes its 65504.
"""

BLOCK_BYTES = 16384
WARPS = 4


@triton.jit
def _read(buffer: tl.tensor, out: tl.tensor, elements: int, BLOCK: tl.constexpr) -> None:
    program = tl.program_id(0).to(tl.int64)  # int64: a buffer beyond the L2 of any GPU passes 2^31 bytes
    offset = program * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(buffer + offset, mask=offset < elements, other=0.0)
    tl.store(out + program, tl.sum(value.to(tl.float32)))


def work(*, elements: int, dtype: str) -> Work:
    """Read the buffer once; the sums written are at most 4 bytes in 16 KiB. An addition an element."""
    return Work(flops=elements, hbm_bytes=elements * ITEMSIZE[dtype])


def block_sums(buffer: torch.Tensor, size: int) -> torch.Tensor:
    """Float64 sums of each `size` elements, slice by slice."""
    sums = []
    for part in buffer.split(SLICE):
        whole = part.numel() // size * size
        sums.append(part[:whole].view(-1, size).sum(dim=1, dtype=torch.float64))
        if whole < part.numel():
            sums.append(part[whole:].sum(dim=0, keepdim=True, dtype=torch.float64))
    return torch.cat(sums)


def torch_inputs(draw: Draw, *, elements: int, dtype: str) -> Inputs:
    """buffer[elements] and out[1]."""
    return {"buffer": draw.weight(elements, dtype=dtype), "out": draw.output(1, dtype=dtype)}


def torch_run(buffer: torch.Tensor, out: torch.Tensor) -> None:
    """One sum of everything."""
    torch.sum(buffer.view(1, -1), dim=1, out=out)


def torch_reference(buffer: torch.Tensor) -> torch.Tensor:
    """The sum in float64."""
    return block_sums(buffer, 4096).sum(dim=0, keepdim=True)


def triton_inputs(draw: Draw, *, elements: int, dtype: str) -> Inputs:
    """buffer[elements] and out[programs], a program reading 16 KiB."""
    programs = triton.cdiv(elements * ITEMSIZE[dtype], BLOCK_BYTES)
    return {"buffer": draw.weight(elements, dtype=dtype), "out": draw.output(programs, dtype="fp32")}


def triton_run(buffer: torch.Tensor, out: torch.Tensor) -> None:
    """One sum for each 16 KiB: eight 16-byte loads a thread, all in flight before the first is used."""
    block = BLOCK_BYTES // buffer.element_size()
    _read[(out.numel(),)](buffer, out, buffer.numel(), BLOCK=block, num_warps=WARPS, **OPTIONS)


def triton_reference(buffer: torch.Tensor) -> torch.Tensor:
    """Each program's sum in float64."""
    return block_sums(buffer, BLOCK_BYTES // buffer.element_size())


def variants(dtype: str) -> list[Variant]:
    """The one compiled form."""
    signature = {"buffer": f"*{dtype}", "out": "*fp32", "elements": "i32"}
    return [Variant(_read, signature, {"BLOCK": BLOCK_BYTES // ITEMSIZE[dtype]}, WARPS, 1)]


TORCH_READ = Kernel(
    name="torch_read",
    op="read",
    implementation="torch",
    inputs=torch_inputs,
    run=torch_run,
    reference=torch_reference,
    work=work,
    rtol=RTOL,
    archs=None,
)

TRITON_READ = Kernel(
    name="triton_read",
    op="read",
    implementation="triton",
    inputs=triton_inputs,
    run=triton_run,
    reference=triton_reference,
    work=work,
    rtol=RTOL,
    archs=TRITON_ARCHS,
    missing=missing_triton_launch,
)
