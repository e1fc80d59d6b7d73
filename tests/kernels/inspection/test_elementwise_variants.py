"""Which forms `inspect` has of what lies between a layer's linears."""

import pytest

from kernels.inspection import variants as listing
from kernels.inspection.variants import elementwise_variants
from specs.gpus import ARCHS
from specs.parallel import Shard

GATE_UP = Shard("llama-3-70b", 8, 1, "gate_up", 7168, 8192)
DOWN = Shard("llama-3-70b", 8, 1, "down", 8192, 3584)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_gate_up_alone_has_swiglu_in_its_epilogue(monkeypatch, arch):
    monkeypatch.setattr(listing, "SKINNY_TOKEN_CLASSES", (1, 16))
    served = {}
    for one in elementwise_variants(ARCHS[arch], "bf16", [GATE_UP, DOWN]):
        served.setdefault(one.kernel.name, []).extend(one.shapes)
    served = {name: shapes for name, shapes in served.items() if shapes}
    expected = {"triton_skinny_gate_up": [(GATE_UP, 1), (GATE_UP, 16)]}
    if arch == "sm_90":
        expected["triton_skinny_gate_up_pdl"] = expected["triton_skinny_gate_up"]
    assert served == expected


def test_bytes_in_flight_by_hand():
    found = {one.kernel.name: one for one in elementwise_variants(ARCHS["sm_90"], "bf16", [DOWN])}
    assert found["triton_rmsnorm"].in_flight_bytes == 2 * 8192 * 2  # a row of x and of the residual
    assert found["triton_rotary"].in_flight_bytes == 16 * 128 * 2
    assert found["triton_swiglu"].in_flight_bytes == 2 * 2048
    assert found["triton_rmsnorm"].config == "1x8192 w16"
    assert found["triton_rotary"].config == "16 heads of 128 w4"


def test_two_degrees_of_a_model_share_their_forms():
    once = [one.config for one in elementwise_variants(ARCHS["sm_90"], "fp16", [DOWN])]
    assert [
        one.config for one in elementwise_variants(ARCHS["sm_90"], "fp16", [DOWN, DOWN._replace(tp=4, k=7168)])
    ] == once
