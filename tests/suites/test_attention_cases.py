"""What the record says of an attention case, and which cases are timed side by side."""

import pytest

from kernels.registry import DECODE, PREFILL, pick
from kernels.timing.device import PATIENCE, Device
from specs.layer import PAGED, heads_of
from specs.models import model
from specs.parallel import Split
from suites.case import How, rivals
from suites.probes.kernel import kernel_entry

CPU = Device("cpu", "cpu", 2**16, PATIENCE["cpu"])
HEADS = heads_of(Split(model("llama-3-70b"), 8))
SIZES = {"heads": 8, "kv_heads": 1, "head_dim": 128}


def entry(kernel, **shape):
    how = How("bf16", "cold", "eager", kernel.implementation)
    return kernel_entry("x", CPU, kernel, "attention", how, HEADS, SIZES | shape)


def decode(implementation, batch=4, context=1024):
    pages = {"page_size": 64} if implementation in PAGED else {}
    return entry(pick(DECODE, implementation), batch=batch, context=context, **pages)


def test_a_decode_case_by_hand():
    found = decode("torch")
    case = found.case
    assert (case.op, case.layer, case.model, case.tp, case.pp) == ("attention", "attention", "llama-3-70b", 8, 1)
    assert (case.tokens, case.batch, case.context, case.n, case.k) == (4, 4, 1024, None, None)
    assert found.weight_bytes == 2_097_152  # K and V stream, 2 x 4 x 1024 x 128 x 2 bytes; queries do not
    assert case.hbm_bytes == 2_097_152 + 16_384
    assert (found.copies, case.cache) == (1, "cold")  # 32 x the 64 KiB of the cache already


def test_a_prompt_is_one_sequence_that_attends_to_itself():
    case = entry(pick(PREFILL, "torch"), tokens=512).case
    assert (case.tokens, case.batch, case.context) == (512, 1, 512)


@pytest.mark.parametrize("context", [1024, 1000])
def test_contiguous_and_paged_caches_are_timed_side_by_side(context):
    """They differ in nothing but implementation and kernel, also where the last page is not full."""
    entries = [decode(one.implementation, context=context) for one in DECODE]
    assert len(rivals(entries)) == 1
    assert len(rivals([*entries, decode("torch", context=512)])) == 2
