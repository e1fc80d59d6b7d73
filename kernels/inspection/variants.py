"""One compiled form of a kernel of ours, and how the forms of a configured one are made."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from kernels import ceilings, cuda_gemv, gemm, rmsnorm, rotary, skinny, swiglu
from kernels.compile import Compiled, Variant, compile_variant
from kernels.configs.attention import choose, sms_of_arch
from kernels.configs.config import GEMM_TOKENS, TOKEN_TILES, Config, heads
from kernels.configs.dispatch import choose as dispatch_choose
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION, attention_variant
from kernels.gate_up import TRITON_GEMM_GATE_UP, TRITON_SKINNY_GATE_UP, TRITON_SKINNY_GATE_UP_PDL
from kernels.kernel import Kernel
from specs.gpus import Arch
from specs.layer import PAGE_SIZE
from specs.models import model
from specs.parallel import Shard
from specs.units import ITEMSIZE

Served = dict[tuple[Config, str, bool], list[tuple[Shard, int]]]
"""(configuration, basis, whole tiles), and the shapes that run so."""


@dataclass(frozen=True)
class Form:
    """One kernel in one configuration.

    Attributes:
        kernel: the kernel.
        config: what was configured, in words.
        basis: measured, static model, rule or not chosen, where there was a choice.
        dtype: of the operands.
        warps: of a program.
        in_flight_bytes: that a program has asked memory for and not yet got.
        make: compiles it for an architecture.
        cut: the configuration that predictions are made from; None where the model does not apply.
        serves: (shard, tokens) of the inspected model that run with it.
        lacks: what the architecture does not have that this needs; None where it runs.
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
    lacks: str | None = None


def served(on: Arch, dtype: str, shards: Sequence[Shard], tiles: Sequence[int]) -> Served:
    """What the decode linear is configured to for each shard at each tile of tokens."""
    found: Served = {}
    for shard in shards:
        for tokens in tiles:
            choice = dispatch_choose(on.name, dtype, tokens=tokens, n=shard.n, k=shard.k)
            even = choice.config.even(shard.n, shard.k)
            found.setdefault((choice.config, choice.basis, even), []).append((shard, tokens))
    return found


def configured(
    kernel: Kernel,
    config: Config,
    basis: str,
    even: bool,
    dtype: str,
    shapes: Sequence[tuple[Shard, int]],
    *,
    dependent: bool = False,
    swiglu: bool = False,
) -> Form:
    """The decode linear, or what is made of it, in one configuration."""
    variant = skinny.variant(config, dtype, even=even, dependent=dependent, swiglu=swiglu)
    return of_config(kernel, variant, config, basis, even, dtype, shapes)


def of_config(
    kernel: Kernel,
    variant: Variant,
    config: Config,
    basis: str,
    even: bool,
    dtype: str,
    shapes: Sequence[tuple[Shard, int]],
) -> Form:
    """A linear compiled as `variant` for one configuration."""
    return Form(
        kernel=kernel,
        config=str(config) if even else f"{config} masked",
        basis=basis,
        dtype=dtype,
        warps=config.warps,
        in_flight_bytes=config.in_flight_bytes(dtype),
        make=partial(compile_variant, variant),
        cut=config,
        serves=tuple(shapes),
    )


def plain(kernel: Kernel, variant: Variant, config: str, dtype: str, in_flight_bytes: int) -> Form:
    """A kernel that has nothing to choose, or whose time the model does not predict."""
    make = partial(compile_variant, variant)
    return Form(kernel, config, None, dtype, variant.num_warps, in_flight_bytes, make)


# The compiled forms of decode attention that a model's shards run with.

BATCHES = (1, 32)
CONTEXT = 8192


def attention_forms(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    """Contiguous and paged, once for each different code."""
    seen = set()
    for one in heads(shards):
        group, sizes = (
            one.heads // one.kv_heads,
            {name: getattr(one, name) for name in ("heads", "kv_heads", "head_dim")},
        )
        for batch in BATCHES:
            for kernel, page in ((TRITON_DECODE_ATTENTION, 0), (TRITON_PAGED_ATTENTION, PAGE_SIZE)):
                shape = {"batch": batch, "context": CONTEXT, **sizes, "page_size": page}
                cut, basis = choose(on.name, sms_of_arch(on.name), dtype, **shape)
                code = (cut._replace(split=1), cut.levels, group, one.head_dim, page)
                if code not in seen:
                    seen.add(code)
                    parts = ("", ", parts", ", parts of parts")[cut.levels]
                    told = f"{cut.block}x{group}x{one.head_dim} w{cut.warps} s{cut.stages}{parts}"
                    compiled = attention_variant(cut, dtype, group=group, head_dim=one.head_dim, page=page)
                    in_flight = cut.in_flight_bytes(dtype, one.head_dim)
                    yield replace(plain(kernel, compiled, told, dtype, in_flight), basis=basis)


# The compiled forms of the GEMM that an architecture can be asked to run, and for which shapes.


def gemm_forms(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    """The linear's forms, then those with the epilogue of gate and up, which gate_up alone asks for."""
    yield from _of(gemm.TRITON_GEMM, dtype, _served(on, dtype, shards))
    gate_up = [shard for shard in shards if shard.layer == "gate_up"]
    yield from _of(TRITON_GEMM_GATE_UP, dtype, _served(on, dtype, gate_up))


def _served(on: Arch, dtype: str, shards: Sequence[Shard]) -> Served:
    served: Served = {}
    for shard in shards:
        for tokens in GEMM_TOKENS:
            choice = dispatch_choose(on.name, dtype, tokens=tokens, n=shard.n, k=shard.k)
            even = choice.config.tma or shard.k % choice.config.depth == 0
            served.setdefault((choice.config, choice.basis, even), []).append((shard, tokens))
    return served


def _of(kernel: Kernel, dtype: str, served: Served) -> Iterator[Form]:
    swiglu = kernel is TRITON_GEMM_GATE_UP
    for (config, basis, even), shapes in served.items():
        variant = gemm.variant(config, dtype, even=even, swiglu=swiglu)
        yield of_config(kernel, variant, config, basis, even, dtype, shapes)


# The forms of what a layer has between its linears: SwiGLU alone and as an epilogue, RMSNorm, rotary embedding.


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


# Every compiled form of our own kernels that an architecture can be asked to run, and for which shapes.

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
    for variant in ceilings.read_variants(dtype) if dtype in ceilings.TRITON_READ.rtol else ():
        block = variant.constexprs["BLOCK"] * ITEMSIZE[dtype]
        yield plain(ceilings.TRITON_READ, variant, f"{block // 1024} KiB w{variant.num_warps}", dtype, block)
