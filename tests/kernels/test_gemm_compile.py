"""What the compiler makes of the GEMM, for GPUs that need not be here."""

import re

import pytest

from kernels import gemm
from kernels.compile import TritonVariant, compile_variant
from kernels.configs.config import GEMM_TOKEN_CLASSES, LinearConfig, layer_shards
from kernels.configs.cost_model import gemm_programs_per_sm
from kernels.configs.dispatch import choose_config
from kernels.configs.space import FP32_GEMM_CONFIG
from kernels.inspection.sass import (
    MATRIX_OPCODES,
    base_opcode,
    count_opcodes,
    multiplying_loop,
    narrowest_load_bits,
    summarise_opcodes,
)
from specs.gpus import ARCHS, find_arch
from tests.kernels.compiled_together import CompiledTogether, usual_spill_bytes

SHARDS = layer_shards()
SPLIT = LinearConfig(128, 128, 64, 3, 8, 4)


def chosen(name, layers=("qkv", "o", "gate_up", "down")):
    """Every configuration that these linears of Llama-3-70B run with at any degree and token count."""
    cuts = [(shard.n, shard.k) for shard in SHARDS if shard.layer in layers]
    return sorted(
        {choose_config(name, "bf16", tokens=tokens, n=n, k=k).config for n, k in cuts for tokens in GEMM_TOKEN_CLASSES}
    )


EVERYWHERE = [
    *((name, config, False) for name in ARCHS for config in chosen(name)),
    *((name, config, True) for name in ARCHS for config in chosen(name, ("gate_up",))),
]
VARIANTS = {case: gemm.variant(case[1], "bf16", swiglu=case[2]) for case in EVERYWHERE}
compiled_case = CompiledTogether([(variant, name) for (name, *_), variant in VARIANTS.items()])


def faults(compiled):
    on = ARCHS[compiled.arch]
    found = {
        "spills": compiled.spill_bytes > usual_spill_bytes(compiled.arch),
        "too much shared memory": compiled.shared_bytes > on.shared_bytes_per_block,
        "narrow loads": narrowest_load_bits(compiled.sass) not in (None, 128),
        "foreign matrix instructions": {base_opcode(code) for code in count_opcodes(compiled.sass)}
        & set(MATRIX_OPCODES)
        != {on.matrix},
    }
    return [fault for fault, there in found.items() if there]


@pytest.mark.parametrize(("name", "config", "swiglu"), EVERYWHERE, ids=str)
def test_what_is_chosen_is_clean_and_as_many_programs_as_a_launch_starts_fit_an_sm(name, config, swiglu):
    compiled = compiled_case(VARIANTS[name, config, swiglu], name)
    assert faults(compiled) == []
    assert ("UTMALDG" in summarise_opcodes(compiled.sass)) == config.tma == ARCHS[name].tma
    assert multiplying_loop(compiled.sass).barriers <= config.pipeline_barriers
    fitting = gemm_programs_per_sm(
        find_arch(name), config, "bf16", registers=compiled.registers, shared=compiled.shared_bytes
    )
    assert 1 <= gemm_programs_per_sm(find_arch(name), config, "bf16") <= fitting


@pytest.mark.parametrize("even", [True, False], ids=["even", "masked"])
@pytest.mark.parametrize("name", ["sm_80", "sm_90", "sm_100"])
def test_rows_off_16_bytes_and_ragged_k_run_without_descriptors_in_the_same_configurations(name, even):
    most = max(chosen(name), key=lambda config: (config.rows * config.tokens, config.split))
    assert faults(compile_variant(gemm.variant(most, "bf16", even=even, fetched=False), name)) == []


@pytest.mark.parametrize("name", ["sm_80", "sm_90", "sm_100"])
def test_fp32_multiplies_without_matrix_units(name):
    compiled = compile_variant(gemm.variant(FP32_GEMM_CONFIG, "fp32"), name)
    assert faults(compiled) == ["foreign matrix instructions"]  # none at all
    assert not {base_opcode(code) for code in count_opcodes(compiled.sass)} & set(MATRIX_OPCODES)


def test_fp16_is_multiplied_as_bf16_is():
    assert faults(compile_variant(gemm.variant(LinearConfig(256, 128, 64, 1, 8, 4, tma=True), "fp16"), "sm_90")) == []


@pytest.mark.parametrize(("rows", "tokens"), [(256, 128), (128, 256)])
def test_the_largest_tiles_leave_their_sums_in_registers(rows, tokens):
    """128 x 256 fp32 sums are 128 of the 255 registers of 256 threads; one instruction has 64 rows by 256 columns."""
    compiled = compile_variant(gemm.variant(LinearConfig(rows, tokens, 64, 1, 8, 4, tma=True), "bf16"), "sm_90")
    assert faults(compiled) == []
    assert any(code.startswith(f"HGMMA.64x{rows}x16") for code in count_opcodes(compiled.sass))


@pytest.mark.parametrize("name", ["sm_90", "sm_120"])
def test_a_tile_is_stored_within_the_loop_that_asks_for_the_next(name):
    """Nothing leads back to the loop's head between its loads and the stores that follow them in the code."""
    ptx = compile_variant(gemm.variant(LinearConfig(128, 128, 64, 1, 8, 3, tma=True), "bf16"), name).ptx
    stored = ptx.index("cp.async.bulk.tensor.2d.global.shared")
    asked = ptx.rindex("cp.async.bulk.tensor.2d.shared", 0, stored)
    head = re.findall(r"^(\$L__BB\d+_\d+):.*Loop Header", ptx[:asked], re.MULTILINE)[-1]
    assert not re.search(rf"bra(\.uni)?\s+{re.escape(head)};", ptx[asked:stored])


@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
@pytest.mark.parametrize("tma", [False, True], ids=["pointers", "descriptors"])
def test_partial_sums_are_released_before_a_program_counts_itself_in(name, tma):
    """Interpreter and, with luck, a GPU would not show it: all stores, a barrier, then the release of one thread."""
    if tma and not ARCHS[name].tma:
        pytest.skip(f"{name} has no copy engine")
    ptx = compile_variant(gemm.variant(SPLIT._replace(tma=tma), "bf16"), name).ptx
    counted = ptx.index("atom.global.gpu.acq_rel.add")
    stored = ptx.rindex("st.global", 0, counted)
    assert "bar.sync" in ptx[stored:counted]
    assert "ld.global.cg" in ptx[counted:], "what other programs left is no matter of L1"


def test_programs_can_be_held_up_at_random():
    variant = gemm.variant(SPLIT, "bf16")
    held = compile_variant(variant._replace(constexprs={**variant.constexprs, "DELAY": 2000}), "sm_90")
    assert held.ptx.count("%globaltimer") > 1
    assert "%globaltimer" not in compile_variant(variant, "sm_90").ptx


@pytest.mark.parametrize("ones", [("n",), ("k",), ("n", "k")])
@pytest.mark.parametrize("config", [SPLIT, SPLIT._replace(split=1)], ids=str)
def test_sizes_of_one_which_a_launch_makes_constants_compile(config, ones):
    variant = gemm.variant(config, "bf16", even=False)
    signature = {name: kind for name, kind in variant.signature.items() if name not in ones}
    constants = {**variant.constexprs, **dict.fromkeys(ones, 1)}
    assert compile_variant(TritonVariant(variant.fn, signature, constants, 8, 4), "sm_90").registers > 0


def test_spills_and_too_much_shared_memory_are_caught():
    compiled = compile_variant(gemm.variant(LinearConfig(256, 128, 64, 1, 4, 6), "bf16"), "sm_80")
    assert faults(compiled) == ["spills", "too much shared memory"]
