"""What the compiler makes of the Triton kernels but the GEMM, for GPUs that need not be here."""

import pytest
import triton

from kernels import ceilings, rmsnorm, rotary, skinny, swiglu
from kernels.compile import TritonVariant, compile_variant
from kernels.configs.config import SKINNY_TOKEN_CLASSES, LinearConfig, compiles_well, layer_shards
from kernels.configs.dispatch import choose_config
from kernels.inspection.sass import (
    MATRIX_OPCODES,
    base_opcode,
    count_opcodes,
    multiplying_loop,
    narrowest_load_bits,
    summarise_opcodes,
)
from kernels.kernel import RandomTensors
from kernels.skinny import TRITON_SKINNY
from specs.errors import UserError
from specs.gpus import ARCHS
from tests.kernels.compiled_together import CompiledTogether, usual_spill_bytes
from tests.kernels.interpreter import interpreted, needs_interpreter

ARCHES = tuple(ARCHS)
SHARDS = layer_shards()


def chosen(arch, dtype="bf16", shards=SHARDS):
    """Every (configuration, whole tiles) that a layer of Llama-3-70B runs with at any degree and token count."""
    configs = [
        (choose_config(arch, dtype, tokens=tokens, n=shard.n, k=shard.k).config, shard)
        for shard in shards
        for tokens in SKINNY_TOKEN_CLASSES
    ]
    return sorted({(config, config.even(shard.n, shard.k)) for config, shard in configs})


EVERYWHERE = [(variant, arch) for arch in ARCHES for variant in ceilings.read_variants("bf16")]
SKINNY = [(skinny.variant(config, "bf16", even=even), arch) for arch in ARCHES for config, even in chosen(arch)]
DEPENDENT = [
    (skinny.variant(config, "bf16", even=even, dependent=True), arch)
    for arch in ("sm_90", "sm_100", "sm_120")
    for config, even in chosen(arch)
]
OTHERS = [
    (ceilings.read_variants("fp32")[0], "sm_90"),
    *(
        (skinny.variant(choose_config("sm_90", dtype, tokens=tokens, n=1280, k=8192).config, dtype), "sm_90")
        for dtype in ("fp32", "fp16")
        for tokens in (1, 16, 64)
    ),
]
PIECES = [
    *((variant, arch) for arch in ARCHES for variant in swiglu.variants("bf16")),
    *((rmsnorm.variant(hidden, "bf16"), arch) for arch in ARCHES for hidden in (4096, 8192, 16384)),
    *((rotary.variant(128, "bf16"), arch) for arch in ARCHES),
    *((rmsnorm.variant(hidden, "fp32"), "sm_90") for hidden in (2048, 16384)),
    *((rmsnorm.variant(512, dtype), "sm_90") for dtype in ("bf16", "fp16")),
    *((rotary.variant(*given), "sm_90") for given in ((64, "bf16"), (96, "bf16"), (128, "fp16"), (128, "fp32"))),
    *((swiglu.variants(dtype)[0], "sm_90") for dtype in ("fp32", "fp16")),
]
GATE_UPS = [shard for shard in SHARDS if shard.layer == "gate_up"]
GATE_UP = [
    (skinny.variant(config, "bf16", even=even, dependent=ARCHS[arch].dependent_launch, swiglu=True), arch)
    for arch in ARCHES
    for config, even in chosen(arch, shards=GATE_UPS)
]
TMA = [
    (skinny.variant(LinearConfig(64, 16, 128, 3, 4, 4, tma=True), "bf16"), arch)
    for arch in ("sm_90", "sm_100", "sm_120")
]
CASES = EVERYWHERE + SKINNY + DEPENDENT + PIECES + GATE_UP + OTHERS + TMA
compiled_case = CompiledTogether(CASES)


def faults(compiled):
    found = {
        "spills": compiled.spill_bytes > usual_spill_bytes(compiled.arch),
        "too much shared memory": compiled.shared_bytes > ARCHS[compiled.arch].shared_bytes_per_block,
        "narrow loads": narrowest_load_bits(compiled.sass) != 128,
    }
    return [fault for fault, there in found.items() if there]


def multiplies(compiled):
    return {base_opcode(code) for code in count_opcodes(compiled.sass)} & set(MATRIX_OPCODES)


@pytest.mark.parametrize(
    ("variant", "arch"),
    CASES,
    ids=lambda value: f"{value.fn.__name__}-{value}" if isinstance(value, TritonVariant) else value,
)
def test_variant_is_clean(variant, arch):
    compiled = compiled_case(variant, arch)
    assert compiled.registers > 0
    assert faults(compiled) == []
    sizes = variant.constexprs
    tensor = sizes.get("MATRIX", False) and variant.signature["x"] != "*fp32"
    assert multiplies(compiled) == ({ARCHS[arch].matrix} if tensor else set())
    assert ("UTMALDG" in summarise_opcodes(compiled.sass)) == ("tiles" in variant.signature)
    if variant.fn is skinny._skinny:
        cut = LinearConfig(1, 1, 1, 1, 1, sizes["STAGES"], tma="tiles" in variant.signature)
        assert multiplying_loop(compiled.sass).barriers <= cut.pipeline_barriers


@pytest.mark.parametrize("arch", ["sm_90", "sm_100", "sm_120"])
def test_dependent_launch_asks_for_weights_before_it_waits(arch):
    config = choose_config(arch, "bf16", tokens=16, n=1280, k=8192).config
    code = compile_variant(skinny.variant(config, "bf16", dependent=True), arch)
    ptx = code.ptx
    launch, wait = ptx.index("griddepcontrol.launch_dependents"), ptx.index("griddepcontrol.wait")
    assert launch < ptx.index("prefetch.global.L2") < ptx.rindex("prefetch.global.L2") < wait
    touches = [ptx.index(word) for word in ("cp.async.cg", "st.global", "atom.global") if word in ptx]
    assert min(touches) > wait
    assert faults(code) == []


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_partial_sums_are_released_before_a_program_counts_itself_in(arch):
    """Interpreter and, with luck, a GPU would not show it: all stores, a barrier, then the release of one thread."""
    ptx = compile_variant(skinny.variant(LinearConfig(64, 16, 64, 3, 4, 3), "bf16"), arch).ptx
    counted = ptx.index("atom.global.gpu.acq_rel.add")
    stored = ptx.rindex("st.global", 0, counted)
    assert "bar.sync" in ptx[stored:counted]
    assert "ld.global.cg" in ptx[counted:], "what other programs left is no matter of L1"


def test_programs_can_be_held_up_at_random():
    config = LinearConfig(64, 16, 64, 2, 4, 3)
    variant = skinny.variant(config, "bf16")
    held = compile_variant(variant._replace(constexprs={**variant.constexprs, "DELAY": 2000}), "sm_90")
    assert held.ptx.count("%globaltimer") > 1
    assert "%globaltimer" not in compile_variant(variant, "sm_90").ptx


@pytest.mark.parametrize("ones", [("n",), ("k",), ("n", "k")])
@pytest.mark.parametrize(
    "config", [LinearConfig(4, 1, 1024, 2, 4, 1, matrix=False), LinearConfig(64, 16, 64, 2, 4, 3)], ids=str
)
def test_sizes_of_one_which_a_launch_makes_constants_compile(config, ones):
    variant = skinny.variant(config, "bf16", even=False)
    signature = {name: kind for name, kind in variant.signature.items() if name not in ones}
    constants = {**variant.constexprs, **dict.fromkeys(ones, 1)}
    assert compile_variant(variant._replace(signature=signature, constexprs=constants), "sm_90").registers > 0


@pytest.mark.parametrize(
    ("variant", "one"),
    [(rmsnorm.variant(1, "bf16"), "hidden"), (swiglu.variants("bf16")[0], "intermediate")],
    ids=["rmsnorm", "swiglu"],
)
def test_rows_of_one_element_compile(variant, one):
    signature = {name: kind for name, kind in variant.signature.items() if name != one}
    constants = {**variant.constexprs, one: 1}
    assert compile_variant(variant._replace(signature=signature, constexprs=constants), "sm_90").registers > 0


def test_weights_leave_the_cache_first_where_they_go_straight_to_registers():
    ptx = compile_variant(skinny.variant(LinearConfig(8, 1, 2048, 1, 4, 1, matrix=False), "bf16"), "sm_90").ptx
    assert "L2::evict_first" in ptx
    assert "L2::evict_last" in ptx


def test_spills_and_too_much_shared_memory_are_caught():
    compiled = compile_variant(skinny.variant(LinearConfig(256, 128, 32, 2, 4, 8), "bf16"), "sm_80")
    assert faults(compiled) == ["spills", "too much shared memory"]


def test_narrow_loads_are_caught():
    variant = skinny.variant(LinearConfig(8, 1, 2048, 1, 4, 1, matrix=False), "bf16")
    unaligned = variant._replace(signature=variant.signature | {"k": "i64"}, fn=unpromised(variant.fn, "k"))
    assert faults(compile_variant(unaligned, "sm_90")) == ["narrow loads"]


def test_needless_barriers_are_what_keeps_one_stage_forms_from_being_chosen():
    config = LinearConfig(8, 1, 512, 1, 2, 1, matrix=False)
    loop = multiplying_loop(compile_variant(skinny.variant(config, "bf16"), "sm_90").sass)
    assert (loop.barriers <= config.pipeline_barriers) == compiles_well(config)


def unpromised(fn, name):
    """The kernel where nothing is known of `name`, as in a launch whose k is odd."""
    return triton.jit(fn.fn, do_not_specialize=["tokens", name])


def test_only_nvidia_from_sm_80_compiles():
    variant = ceilings.read_variants("bf16")[0]
    with pytest.raises(UserError, match=r"'sm_75'.*sm_80, sm_86"):
        compile_variant(variant, "sm_75")


@needs_interpreter
def test_compiles_after_the_interpreter_ran(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with interpreted(skinny):
        TRITON_SKINNY.run(**TRITON_SKINNY.inputs(RandomTensors(8), tokens=1, n=2, k=16, dtype="fp32"))
    config = LinearConfig(4, 1, 512, 1, 4, 1, matrix=False)
    assert faults(compile_variant(skinny.variant(config, "fp32"), "sm_90")) == []
    assert any(tmp_path.iterdir()), "a cached result would have proved nothing"
