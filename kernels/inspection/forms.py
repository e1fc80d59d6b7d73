"""Every compiled form of our own kernels that an architecture can be asked to run, and for which shapes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from kernels import cuda_gemv, gemm, read, skinny
from kernels.compile import Compiled, Variant, compile_variant
from kernels.kernel import Kernel
from kernels.tuning.choice import choose
from kernels.tuning.config import Config
from kernels.tuning.shapes import TOKEN_TILES
from specs.archs import Arch
from specs.dtypes import ITEMSIZE
from specs.parallel import Shard


@dataclass(frozen=True)
class Form:
    """One kernel in one configuration.

    Attributes:
        kernel: the kernel.
        config: what was configured, in words.
        basis: measured, static model or rule, where there was a choice.
        dtype: of the operands.
        warps: of a program.
        in_flight_bytes: that a program has asked memory for and not yet got.
        make: compiles it for an architecture.
        cut: the configuration that predictions are made from; None where the model does not apply.
        serves: (shard, tokens) of the inspected model that run with it.
    """

    kernel: Kernel
    config: str
    basis: str | None
    dtype: str
    warps: int
    in_flight_bytes: int
    make: Callable[[str], Compiled]
    cut: Config | None = None
    serves: tuple[tuple[Shard, int], ...] = ()


def forms(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    """All forms for `on`, decode kernels first."""
    yield from _skinny(on, dtype, shards)
    yield from _cuda(dtype, shards)
    itemsize = ITEMSIZE[dtype]
    for variant in gemm.variants(dtype):
        sizes = variant.constexprs
        in_flight = sizes["ROWS"] * sizes["DEPTH"] * itemsize * (variant.num_stages - 1)
        yield _other(gemm.TRITON_GEMM, variant, dtype, in_flight)
    for variant in read.variants(dtype) if dtype in read.TRITON_READ.rtol else ():
        yield _other(read.TRITON_READ, variant, dtype, variant.constexprs["BLOCK"] * itemsize)


def _skinny(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    served: dict[tuple[Config, str], list[tuple[Shard, int]]] = {}
    for shard in shards:
        for tokens in TOKEN_TILES:
            choice = choose(on.name, dtype, tokens=tokens, n=shard.n, k=shard.k)
            served.setdefault((choice.config, choice.basis), []).append((shard, tokens))
    for kernel, dependent in ((skinny.TRITON_SKINNY, False), (skinny.TRITON_SKINNY_PDL, True)):
        for (config, basis), shapes in served.items():
            variant = skinny.variant(config, dtype, dependent=dependent)
            yield Form(
                kernel=kernel,
                config=str(config),
                basis=basis,
                dtype=dtype,
                warps=config.warps,
                in_flight_bytes=config.in_flight_bytes(dtype),
                make=partial(compile_variant, variant),
                cut=config,
                serves=tuple(shapes),
            )


def _cuda(dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    served: dict[cuda_gemv.Form, list[tuple[Shard, int]]] = {}
    for shard in shards:
        for tokens in cuda_gemv.TOKENS:
            form = cuda_gemv.tile(tokens=tokens, n=shard.n, dtype=dtype)
            served.setdefault(form, []).append((shard, tokens))
    for form, shapes in served.items():
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


def _other(kernel: Kernel, variant: Variant, dtype: str, in_flight_bytes: int) -> Form:
    make = partial(compile_variant, variant)
    return Form(kernel, str(variant), None, dtype, variant.num_warps, in_flight_bytes, make)
