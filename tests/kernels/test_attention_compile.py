"""What the compiler makes of decode attention, for GPUs that need not be here."""

import pytest

from kernels.compile import TritonVariant, compile_variant
from kernels.configs.attention import unsplit_config
from kernels.decode_attention import attention_variant
from specs.gpus import ARCHS, blocks_per_sm
from tests.kernels.compiled_together import CompiledTogether
from tests.kernels.test_compile import faults, multiplies

LLAMA = {"group": 8, "head_dim": 128}


def form(arch, split, dtype="bf16", page=0, group=8, head_dim=128):
    cut = unsplit_config(ARCHS[arch], dtype, head_dim)._replace(split=split)
    return attention_variant(cut, dtype, group=group, head_dim=head_dim, page=page), arch


FORMS = [
    *(form(arch, 1) for arch in ARCHS),
    *(form(arch, 20, page=64) for arch in ARCHS),
    form("sm_90", 2, page=16),
    form("sm_90", 2, group=4, head_dim=64),  # Llama-3.2-1B
    form("sm_120", 2, group=16),  # Llama-3.1-405B, Qwen3-235B
    form("sm_90", 2, group=1),  # GPT-3
    form("sm_90", 2, group=32),
    form("sm_90", 2, dtype="fp16"),
    form("sm_80", 2, dtype="fp32"),
    form("sm_120", 2, dtype="fp32", head_dim=64),
]
compiled_case = CompiledTogether(FORMS)


@pytest.mark.parametrize(
    ("variant", "arch"), FORMS, ids=lambda value: str(value) if isinstance(value, TritonVariant) else value
)
def test_variant_is_clean(variant, arch):
    compiled = compiled_case(variant, arch)
    assert faults(compiled) == []
    half = variant.signature["query"] != "*fp32"
    assert multiplies(compiled) == ({"HMMA"} if half else set())
    sizes = {"registers": compiled.registers, "shared_bytes": compiled.shared_bytes, "warps": variant.num_warps}
    assert blocks_per_sm(ARCHS[arch], **sizes) >= 2, "the rule counts on two programs an SM"


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_results_are_released_before_a_program_counts_itself_in(arch):
    """Interpreter and, with luck, a GPU would not show it: all stores, a barrier, then the release of one thread."""
    ptx = compile_variant(*form(arch, 20, page=64)).ptx
    counts = [at for at in range(len(ptx)) if ptx.startswith("atom.global.gpu.acq_rel.add", at)]
    assert len(counts) == 2, "one for each level"
    for counted in counts:
        stored = ptx.rindex("st.global", 0, counted)
        assert "bar.sync" in ptx[stored:counted]
        assert "ld.global.cg" in ptx[counted:], "what other programs left is no matter of L1"


def test_keys_and_values_of_two_tiles_are_on_their_way():
    """Copies that need no register, four groups of them before the loop: K and V of the first two tiles."""
    ptx = compile_variant(*form("sm_90", 1)).ptx
    assert ptx[: ptx.index("mma.sync")].count("cp.async.commit_group") == 4
