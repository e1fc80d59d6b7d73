"""Which forms of decode attention `inspect` shows: one for each different machine code of a model's shards."""

from kernels.configs.config import layer_shards
from kernels.inspection.variants import attention_variants, inspected_variants
from specs.gpus import ARCHS


def told(arch, *degrees, model="llama-3-70b"):
    return [
        (one.kernel.name, one.config) for one in attention_variants(ARCHS[arch], "bf16", layer_shards(model, degrees))
    ]


def test_each_code_once_with_and_without_pages():
    """On 132 SMs tp 1 is whole at batch 32 and in 32 parts at batch 1; tp 8 is in 8 parts at batch 32."""
    names = ("triton_decode_attention", "triton_paged_attention")
    cut = "64x8x128 w4 s3"
    assert told("sm_90", 1) == [(name, f"{cut}{parts}") for parts in (", parts of parts", "") for name in names]
    assert told("sm_90", 1, 8) == told("sm_90", 1) + [(name, f"{cut}, parts") for name in names]


def test_a_model_of_another_attention_has_none():
    assert told("sm_90", 1, model="deepseek-v3") == []


def test_they_stand_among_all_forms_with_their_bytes():
    found = [
        one
        for one in inspected_variants(ARCHS["sm_120"], "bf16", layer_shards("llama-3-70b", (8,)))
        if one.kernel.op == "attention"
    ]
    assert {(one.basis, one.dtype, one.warps) for one in found} == {("rule", "bf16", 4)}
    assert {one.in_flight_bytes for one in found} == {2 * 32 * 128 * 2}  # K and V of one tile
