"""What the record says of an attention case, and which cases are timed side by side."""

import pytest

from kernels.registry import DECODE_ATTENTION, PREFILL_ATTENTION, find_kernel
from kernels.timing.device import SAMPLING_LIMITS, Device
from specs.layer import PAGED_IMPLEMENTATIONS, attention_shard
from specs.models import find_model
from specs.parallel import Split
from suites.case import RunConfig, group_implementations
from suites.probes.kernel import plan_kernel_case

CPU = Device("cpu", "cpu", 2**16, SAMPLING_LIMITS["cpu"])
HEADS = attention_shard(Split(find_model("llama-3-70b"), 8))
SIZES = {"heads": 8, "kv_heads": 1, "head_dim": 128}


def entry(kernel, **shape):
    how = RunConfig("bf16", "cold", "eager", kernel.implementation)
    return plan_kernel_case("x", CPU, kernel, "attention", how, HEADS, SIZES | shape)


def decode(implementation, batch=4, context=1024):
    pages = {"page_size": 64} if implementation in PAGED_IMPLEMENTATIONS else {}
    return entry(find_kernel(DECODE_ATTENTION, implementation), batch=batch, context=context, **pages)


def test_a_decode_case_by_hand():
    found = decode("torch")
    case = found.case
    assert (case.op, case.layer, case.model, case.tp, case.pp) == ("attention", "attention", "llama-3-70b", 8, 1)
    assert (case.tokens, case.batch, case.context, case.n, case.k) == (4, 4, 1024, None, None)
    assert found.weight_bytes == 2_097_152  # K and V stream, 2 x 4 x 1024 x 128 x 2 bytes; queries do not
    assert case.hbm_bytes == 2_097_152 + 16_384
    assert (found.copies, case.cache) == (1, "cold")  # 32 x the 64 KiB of the cache already


def test_a_prompt_is_one_sequence_that_attends_to_itself():
    case = entry(find_kernel(PREFILL_ATTENTION, "torch"), tokens=512).case
    assert (case.tokens, case.batch, case.context) == (512, 1, 512)


@pytest.mark.parametrize("context", [1024, 1000])
def test_contiguous_and_paged_caches_are_timed_side_by_side(context):
    """They differ in nothing but implementation and kernel, also where the last page is not full."""
    entries = [decode(one.implementation, context=context) for one in DECODE_ATTENTION]
    assert len(group_implementations(entries)) == 1
    assert len(group_implementations([*entries, decode("torch", context=512)])) == 2
