"""Every compiled form of our own kernels that an architecture can be asked to run, and for which shapes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from kernels import cuda_gemv, read, skinny
from kernels.inspection.attention_forms import attention_forms
from kernels.inspection.form import Form, configured, plain, served
from kernels.inspection.gemm_forms import gemm_forms
from kernels.inspection.pieces import pieces
from kernels.tuning.config import Config
from kernels.tuning.shapes import TOKEN_TILES
from specs.gpus import Arch
from specs.parallel import Shard
from specs.units import ITEMSIZE

FETCHED = Config(64, 16, 64, 2, 4, 4, tma=True)
"""What is shown of the bulk tensor copy engine where no shape has chosen it."""


def forms(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    """All forms for `on`, decode kernels first."""
    yield from _skinny(on, dtype, shards)
    yield from _cuda(dtype, shards)
    yield from attention_forms(on, dtype, shards)
    yield from gemm_forms(on, dtype, shards)
    yield from _read(dtype)
    yield from pieces(on, dtype, shards)


def _skinny(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    found = served(on, dtype, shards, TOKEN_TILES)
    made = [configured(skinny.TRITON_SKINNY, *chosen, dtype, shapes) for chosen, shapes in found.items()]
    yield from made
    if dtype != "fp32" and not any(config.tma for config, _, _ in found):
        tma = configured(skinny.TRITON_SKINNY, FETCHED, "not chosen", True, dtype, ())
        yield replace(tma, lacks=None if on.tma else f"{on.name} has no bulk tensor copy engine, sm_90 was the first")
    if made and not on.dependent_launch:
        lacks = f"{on.name} has no programmatic dependent launch, sm_90 was the first"
        yield replace(made[0], kernel=skinny.TRITON_SKINNY_PDL, config="all", basis=None, serves=(), lacks=lacks)
        return
    for chosen, shapes in found.items():
        yield configured(skinny.TRITON_SKINNY_PDL, *chosen, dtype, shapes, dependent=True)


def _cuda(dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    found: dict[cuda_gemv.Form, list[tuple[Shard, int]]] = {}
    for shard in shards:
        for tokens in cuda_gemv.TOKENS:
            form = cuda_gemv.tile(tokens=tokens, n=shard.n, dtype=dtype)
            found.setdefault(form, []).append((shard, tokens))
    for form, shapes in found.items():
        step = form.threads * cuda_gemv.CHUNK_BYTES // ITEMSIZE[dtype]
        # Every stage of its ring is in flight, where Triton's pipeline works on one.
        cut = Config(form.rows, form.tokens, step, 1, form.warps, form.stages + 1, matrix=False)
        yield Form(
            kernel=cuda_gemv.CUDA_GEMV,
            config=str(form),
            basis="rule",
            dtype=dtype,
            warps=form.warps,
            in_flight_bytes=cuda_gemv.bytes_in_flight(form),
            make=partial(cuda_gemv.compiled, form),
            cut=cut,
            serves=tuple(shapes),
        )


def _read(dtype: str) -> Iterator[Form]:
    for variant in read.variants(dtype) if dtype in read.TRITON_READ.rtol else ():
        block = variant.constexprs["BLOCK"] * ITEMSIZE[dtype]
        yield plain(read.TRITON_READ, variant, f"{block // 1024} KiB w{variant.num_warps}", dtype, block)
