"""The compiled forms of our kernels that an architecture can be asked to run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from kernels import ceilings, cuda_gemv, gemm, rmsnorm, rotary, skinny, swiglu
from kernels.compile import CompiledKernel, TritonVariant, compile_variant
from kernels.configs.attention import arch_sm_count, choose_split_config
from kernels.configs.config import GEMM_TOKEN_CLASSES, SKINNY_TOKEN_CLASSES, LinearConfig, attention_shards
from kernels.configs.dispatch import choose_config as dispatch_choose
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION, attention_variant
from kernels.gate_up import TRITON_GEMM_GATE_UP, TRITON_SKINNY_GATE_UP, TRITON_SKINNY_GATE_UP_PDL
from kernels.kernel import Kernel
from specs.gpus import Arch
from specs.layer import PAGE_SIZE
from specs.models import find_model
from specs.parallel import Shard
from specs.units import ITEMSIZE

ShapesByChoice = dict[tuple[LinearConfig, str, bool], list[tuple[Shard, int]]]
"""Shapes by (configuration, basis, whole tiles)."""


@dataclass(frozen=True)
class InspectedVariant:
    """One kernel in one configuration.

    Attributes:
        kernel: the kernel.
        config: the configuration, in words.
        basis: measured, static model, rule or not chosen, where there was a choice.
        dtype: dtype of the operands.
        warps: warps of a program.
        in_flight_bytes: bytes that a program has in flight.
        compile_for: compiles it for an architecture.
        linear_config: the configuration for predictions; None where the model does not apply.
        shapes: (shard, tokens) of the inspected model that run with it.
        missing_feature: required feature that the architecture lacks; None where the form runs.
    """

    kernel: Kernel
    config: str
    basis: str | None
    dtype: str
    warps: int
    in_flight_bytes: int
    compile_for: Callable[[str], CompiledKernel]
    linear_config: LinearConfig | None = None
    shapes: tuple[tuple[Shard, int], ...] = ()
    missing_feature: str | None = None


def skinny_choices(arch: Arch, dtype: str, shards: Sequence[Shard], tiles: Sequence[int]) -> ShapesByChoice:
    """Return the decode linear's configurations for each shard and tile of tokens."""
    found: ShapesByChoice = {}
    for shard in shards:
        for tokens in tiles:
            choice = dispatch_choose(arch.name, dtype, tokens=tokens, n=shard.n, k=shard.k)
            even = choice.config.even(shard.n, shard.k)
            found.setdefault((choice.config, choice.basis, even), []).append((shard, tokens))
    return found


def skinny_variant(
    kernel: Kernel,
    config: LinearConfig,
    basis: str,
    even: bool,
    dtype: str,
    shapes: Sequence[tuple[Shard, int]],
    *,
    dependent: bool = False,
    swiglu: bool = False,
) -> InspectedVariant:
    """Return the decode linear, or a kernel derived from it, in one configuration."""
    variant = skinny.variant(config, dtype, even=even, dependent=dependent, swiglu=swiglu)
    return linear_variant(kernel, variant, config, basis, even, dtype, shapes)


def linear_variant(
    kernel: Kernel,
    variant: TritonVariant,
    config: LinearConfig,
    basis: str,
    even: bool,
    dtype: str,
    shapes: Sequence[tuple[Shard, int]],
) -> InspectedVariant:
    """Return a linear compiled as `variant` for one configuration."""
    return InspectedVariant(
        kernel=kernel,
        config=str(config) if even else f"{config} masked",
        basis=basis,
        dtype=dtype,
        warps=config.warps,
        in_flight_bytes=config.in_flight_bytes(dtype),
        compile_for=partial(compile_variant, variant),
        linear_config=config,
        shapes=tuple(shapes),
    )


def fixed_variant(
    kernel: Kernel, variant: TritonVariant, config: str, dtype: str, in_flight_bytes: int
) -> InspectedVariant:
    """Return a kernel without a choice, or one that the model does not predict."""
    make = partial(compile_variant, variant)
    return InspectedVariant(kernel, config, None, dtype, variant.num_warps, in_flight_bytes, make)


# The compiled forms of decode attention that a model's shards run with.

INSPECTED_BATCHES = (1, 32)
INSPECTED_CONTEXT = 8192


def attention_variants(arch: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[InspectedVariant]:
    """Yield contiguous and paged forms, once for each different code."""
    seen = set()
    for one in attention_shards(shards):
        group, sizes = (
            one.heads // one.kv_heads,
            {name: getattr(one, name) for name in ("heads", "kv_heads", "head_dim")},
        )
        for batch in INSPECTED_BATCHES:
            for kernel, page in ((TRITON_DECODE_ATTENTION, 0), (TRITON_PAGED_ATTENTION, PAGE_SIZE)):
                shape = {"batch": batch, "context": INSPECTED_CONTEXT, **sizes, "page_size": page}
                cut, basis = choose_split_config(arch.name, arch_sm_count(arch.name), dtype, **shape)
                code = (cut._replace(split=1), cut.merge_levels, group, one.head_dim, page)
                if code not in seen:
                    seen.add(code)
                    parts = ("", ", parts", ", parts of parts")[cut.merge_levels]
                    told = f"{cut.block}x{group}x{one.head_dim} w{cut.warps} s{cut.stages}{parts}"
                    compiled = attention_variant(cut, dtype, group=group, head_dim=one.head_dim, page=page)
                    in_flight = cut.in_flight_bytes(dtype, one.head_dim)
                    yield replace(fixed_variant(kernel, compiled, told, dtype, in_flight), basis=basis)


# The compiled forms of the GEMM.


def gemm_variants(arch: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[InspectedVariant]:
    """Yield the linear's forms, then those with the epilogue of gate and up.

    Only gate_up asks for that epilogue.
    """
    yield from _gemm_variants_of(gemm.TRITON_GEMM, dtype, _gemm_choices(arch, dtype, shards))
    gate_up = [shard for shard in shards if shard.layer == "gate_up"]
    yield from _gemm_variants_of(TRITON_GEMM_GATE_UP, dtype, _gemm_choices(arch, dtype, gate_up))


def _gemm_choices(arch: Arch, dtype: str, shards: Sequence[Shard]) -> ShapesByChoice:
    served: ShapesByChoice = {}
    for shard in shards:
        for tokens in GEMM_TOKEN_CLASSES:
            choice = dispatch_choose(arch.name, dtype, tokens=tokens, n=shard.n, k=shard.k)
            even = choice.config.tma or shard.k % choice.config.depth == 0
            served.setdefault((choice.config, choice.basis, even), []).append((shard, tokens))
    return served


def _gemm_variants_of(kernel: Kernel, dtype: str, served: ShapesByChoice) -> Iterator[InspectedVariant]:
    swiglu = kernel is TRITON_GEMM_GATE_UP
    for (config, basis, even), shapes in served.items():
        variant = gemm.variant(config, dtype, even=even, swiglu=swiglu)
        yield linear_variant(kernel, variant, config, basis, even, dtype, shapes)


# The forms of the elementwise kernels: SwiGLU alone and as an epilogue, RMSNorm, rotary embedding.


def elementwise_variants(arch: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[InspectedVariant]:
    """Yield all forms for `arch` that the models of `shards` run with."""
    found = skinny_choices(arch, dtype, [shard for shard in shards if shard.layer == "gate_up"], SKINNY_TOKEN_CLASSES)
    for chosen, shapes in found.items():
        yield skinny_variant(TRITON_SKINNY_GATE_UP, *chosen, dtype, shapes, swiglu=True)
    for chosen, shapes in found.items() if arch.dependent_launch else ():
        yield skinny_variant(TRITON_SKINNY_GATE_UP_PDL, *chosen, dtype, shapes, swiglu=True, dependent=True)
    models = [find_model(name) for name in dict.fromkeys(shard.model for shard in shards)]
    for hidden in dict.fromkeys(one.hidden for one in models if one.hidden <= rmsnorm.MAX_HIDDEN):
        yield _rmsnorm_variant(hidden, dtype)
    for head_dim in dict.fromkeys(one.head_dim for one in models if one.head_dim):
        yield _rotary_variant(head_dim, dtype)
    for variant in swiglu.variants(dtype):
        words = f"2 x {swiglu.BLOCK_BYTES // 1024} KiB w{variant.num_warps}"
        yield fixed_variant(swiglu.TRITON_SWIGLU, variant, words, dtype, 2 * swiglu.BLOCK_BYTES)


def _rmsnorm_variant(hidden: int, dtype: str) -> InspectedVariant:
    rows, columns, warps = rmsnorm.choose_tiling(hidden=hidden, itemsize=ITEMSIZE[dtype])
    in_flight = 2 * rows * hidden * ITEMSIZE[dtype]  # x and residual; the weight is in L2
    words = f"{rows}x{columns} w{warps}"
    return fixed_variant(rmsnorm.TRITON_RMSNORM, rmsnorm.variant(hidden, dtype), words, dtype, in_flight)


def _rotary_variant(head_dim: int, dtype: str) -> InspectedVariant:
    variant = rotary.variant(head_dim, dtype)
    heads = variant.constexprs["HEADS"]
    words = f"{heads} heads of {head_dim} w{variant.num_warps}"
    return fixed_variant(rotary.TRITON_ROTARY, variant, words, dtype, heads * head_dim * ITEMSIZE[dtype])


# All compiled forms.

TMA_EXAMPLE = LinearConfig(64, 16, 64, 2, 4, 4, tma=True)
"""Example of the bulk tensor copy engine, where no shape has chosen it."""


def inspected_variants(arch: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[InspectedVariant]:
    """Yield all forms for `arch`, decode kernels first."""
    yield from _skinny_variants(arch, dtype, shards)
    yield from _gemv_variants(dtype, shards)
    yield from attention_variants(arch, dtype, shards)
    yield from gemm_variants(arch, dtype, shards)
    yield from _read_variants(dtype)
    yield from elementwise_variants(arch, dtype, shards)


def _skinny_variants(arch: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[InspectedVariant]:
    found = skinny_choices(arch, dtype, shards, SKINNY_TOKEN_CLASSES)
    made = [skinny_variant(skinny.TRITON_SKINNY, *chosen, dtype, shapes) for chosen, shapes in found.items()]
    yield from made
    if dtype != "fp32" and not any(config.tma for config, _, _ in found):
        tma = skinny_variant(skinny.TRITON_SKINNY, TMA_EXAMPLE, "not chosen", True, dtype, ())
        yield replace(
            tma,
            missing_feature=None if arch.tma else f"{arch.name} has no bulk tensor copy engine, sm_90 was the first",
        )
    if made and not arch.dependent_launch:
        lacks = f"{arch.name} has no programmatic dependent launch, sm_90 was the first"
        yield replace(
            made[0], kernel=skinny.TRITON_SKINNY_PDL, config="all", basis=None, shapes=(), missing_feature=lacks
        )
        return
    for chosen, shapes in found.items():
        yield skinny_variant(skinny.TRITON_SKINNY_PDL, *chosen, dtype, shapes, dependent=True)


def _gemv_variants(dtype: str, shards: Sequence[Shard]) -> Iterator[InspectedVariant]:
    found: dict[cuda_gemv.GemvVariant, list[tuple[Shard, int]]] = {}
    for shard in shards:
        for tokens in cuda_gemv.SUPPORTED_TOKENS:
            form = cuda_gemv.choose_variant(tokens=tokens, n=shard.n, dtype=dtype)
            found.setdefault(form, []).append((shard, tokens))
    for form, shapes in found.items():
        step = form.threads * cuda_gemv.CHUNK_BYTES // ITEMSIZE[dtype]
        # Every stage of the ring is in flight, where Triton's pipeline works on one stage.
        cut = LinearConfig(form.rows, form.tokens, step, 1, form.warps, form.stages + 1, matrix=False)
        yield InspectedVariant(
            kernel=cuda_gemv.CUDA_GEMV,
            config=str(form),
            basis="rule",
            dtype=dtype,
            warps=form.warps,
            in_flight_bytes=cuda_gemv.bytes_in_flight(form),
            compile_for=partial(cuda_gemv.compile_gemv, form),
            linear_config=cut,
            shapes=tuple(shapes),
        )


def _read_variants(dtype: str) -> Iterator[InspectedVariant]:
    for variant in ceilings.read_variants(dtype) if dtype in ceilings.TRITON_READ.rtol else ():
        block = variant.constexprs["BLOCK"] * ITEMSIZE[dtype]
        yield fixed_variant(ceilings.TRITON_READ, variant, f"{block // 1024} KiB w{variant.num_warps}", dtype, block)
