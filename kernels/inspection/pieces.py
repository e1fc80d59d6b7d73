"""The forms of what a layer has between its linears: SwiGLU alone and as an epilogue, RMSNorm, rotary embedding."""

from collections.abc import Iterator, Sequence

from kernels import rmsnorm, rotary, swiglu
from kernels.gate_up import TRITON_SKINNY_GATE_UP, TRITON_SKINNY_GATE_UP_PDL
from kernels.inspection.form import Form, configured, plain, served
from kernels.tuning.shapes import TOKEN_TILES
from specs.gpus import Arch
from specs.models import model
from specs.parallel import Shard
from specs.units import ITEMSIZE


def pieces(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    """All forms for `on` that the models of `shards` run with."""
    found = served(on, dtype, [shard for shard in shards if shard.layer == "gate_up"], TOKEN_TILES)
    for chosen, shapes in found.items():
        yield configured(TRITON_SKINNY_GATE_UP, *chosen, dtype, shapes, swiglu=True)
    for chosen, shapes in found.items() if on.dependent_launch else ():
        yield configured(TRITON_SKINNY_GATE_UP_PDL, *chosen, dtype, shapes, swiglu=True, dependent=True)
    models = [model(name) for name in dict.fromkeys(shard.model for shard in shards)]
    for hidden in dict.fromkeys(one.hidden for one in models if one.hidden <= rmsnorm.MOST_HIDDEN):
        yield _rmsnorm(hidden, dtype)
    for head_dim in dict.fromkeys(one.head_dim for one in models if one.head_dim):
        yield _rotary(head_dim, dtype)
    for variant in swiglu.variants(dtype):
        words = f"2 x {swiglu.BLOCK_BYTES // 1024} KiB w{variant.num_warps}"
        yield plain(swiglu.TRITON_SWIGLU, variant, words, dtype, 2 * swiglu.BLOCK_BYTES)


def _rmsnorm(hidden: int, dtype: str) -> Form:
    rows, columns, warps = rmsnorm.cut(hidden=hidden, itemsize=ITEMSIZE[dtype])
    in_flight = 2 * rows * hidden * ITEMSIZE[dtype]  # x and residual; the weight is in L2
    words = f"{rows}x{columns} w{warps}"
    return plain(rmsnorm.TRITON_RMSNORM, rmsnorm.variant(hidden, dtype), words, dtype, in_flight)


def _rotary(head_dim: int, dtype: str) -> Form:
    variant = rotary.variant(head_dim, dtype)
    heads = variant.constexprs["HEADS"]
    words = f"{heads} heads of {head_dim} w{variant.num_warps}"
    return plain(rotary.TRITON_ROTARY, variant, words, dtype, heads * head_dim * ITEMSIZE[dtype])
