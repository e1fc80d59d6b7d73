"""References, work and what runs on a CPU, by hand on tiny cases; no Triton runs here."""

import math
from types import SimpleNamespace

import pytest
import torch

from kernels import attention
from kernels.attention import (
    FLASH_ATTN_DECODE,
    FLASH_ATTN_PREFILL,
    FLASHINFER_DECODE,
    TORCH_DECODE_ATTENTION,
    TORCH_PREFILL_ATTENTION,
)
from kernels.kernel import CHECK_ELEMENTS, RandomTensors
from kernels.registry import DECODE_ATTENTION, PREFILL_ATTENTION, find_kernel
from specs.errors import UserError
from specs.roofline import Work

DECODED = {"batch": 3, "context": 40, "heads": 6, "kv_heads": 2, "head_dim": 64}
PROMPT = {"tokens": 70, "heads": 6, "kv_heads": 2, "head_dim": 64}
CASES = [
    pytest.param(kernel, shape, dtype, id=f"{kernel.name}-{dtype}")
    for kernel, shape in ((TORCH_DECODE_ATTENTION, DECODED), (TORCH_PREFILL_ATTENTION, PROMPT))
    for dtype in kernel.rtol
]


def test_decode_reference_by_hand():
    """head_dim 4 halves the scores: ln 3 x 2 / 2 against 0, so weights of 3/4 and 1/4; two heads share the kv head."""
    query = torch.tensor([[[1.0, 0, 0, 0], [0, 0, 0, 1]]])
    key = torch.tensor([[2 * math.log(3), 0, 0, 0], [0, 0, 0, 0], [9, 9, 9, 9]]).view(1, 3, 1, 4)
    value = torch.tensor([[4.0, 8, 0, 0], [0, 0, 4, 8], [99, 99, 99, 99]]).view(1, 3, 1, 4)
    lengths = torch.tensor([2], dtype=torch.int32)  # the third token is not there yet
    out = attention.decode_reference(query, key, value, lengths)
    torch.testing.assert_close(out.float(), torch.tensor([[[3.0, 6, 1, 2], [2, 4, 2, 4]]]))
    pages = torch.stack([key[0, 2:], key[0, 1:2], key[0, :1]]), torch.stack([value[0, 2:], value[0, 1:2], value[0, :1]])
    table = torch.tensor([[2, 1, 0]], dtype=torch.int32)
    assert torch.equal(attention.paged_reference(query, *pages, table, lengths), out)


def test_decode_reference_over_several_slices():
    tokens = CHECK_ELEMENTS // 64 + 5  # one slice holds 2^22 / 64
    inputs = TORCH_DECODE_ATTENTION.inputs(
        RandomTensors(1), batch=1, context=tokens, heads=1, kv_heads=1, head_dim=64, dtype="fp32"
    )
    found = attention.decode_reference(**{name: one for name, one in inputs.items() if name != "out"})
    key, value = inputs["key"][0, :, 0].double(), inputs["value"][0, :, 0].double()
    expected = torch.softmax(key @ inputs["query"][0, 0].double() / 8, dim=0) @ value
    torch.testing.assert_close(found[0, 0], expected)


def test_prefill_reference_by_hand():
    """The first token sees itself alone; the second both, with weights of 3/4 and 1/4 as above."""
    query = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0]]).view(2, 1, 4)
    key = torch.tensor([[2 * math.log(3), 0, 0, 0], [0, 0, 0, 0]]).view(2, 1, 4)
    value = torch.tensor([[4.0, 8, 0, 0], [0, 0, 4, 8]]).view(2, 1, 4)
    out = attention.prefill_reference(query, key, value)
    torch.testing.assert_close(out[:, 0].float(), torch.tensor([[4.0, 8, 0, 0], [3, 6, 1, 2]]))


def test_prefill_reference_is_the_same_in_blocks_of_any_size(monkeypatch):
    inputs = TORCH_PREFILL_ATTENTION.inputs(RandomTensors(1), **PROMPT, dtype="fp32")
    inputs.pop("out")
    whole = attention.prefill_reference(**inputs)
    monkeypatch.setattr(attention, "CHECK_ELEMENTS", 6 * 70 * 8)  # blocks of eight rows, and a last one of six
    torch.testing.assert_close(attention.prefill_reference(**inputs), whole)


def test_work_by_hand():
    shape = {"batch": 4, "context": 1024, "heads": 8, "kv_heads": 1, "head_dim": 128}
    # 4 x 1024 x 8 x 128, 2 flops for QK and 2 for PV; K and V 2 x 4 x 1024 x 128, q and out 2 x 4 x 8 x 128, in bf16
    expected = Work(16_777_216, 2_097_152 + 16_384)
    assert TORCH_DECODE_ATTENTION.work(**shape, dtype="bf16") == expected
    assert find_kernel(DECODE_ATTENTION, "triton-paged").work(**shape, page_size=64, dtype="bf16") == expected
    # 512 x 513 / 2 pairs of tokens x 8 x 128 x 4; K and V 2 x 512 x 128, q and out 2 x 512 x 8 x 128, 2 bytes each
    prompt = {"tokens": 512, "heads": 8, "kv_heads": 1, "head_dim": 128}
    assert TORCH_PREFILL_ATTENTION.work(**prompt, dtype="bf16") == Work(537_919_488, 262_144 + 2_097_152)


@pytest.mark.parametrize(("kernel", "shape", "dtype"), CASES)
def test_torch_kernels_on_cpu(kernel, shape, dtype):
    inputs = kernel.inputs(RandomTensors(1), **shape, dtype=dtype)
    assert math.isnan(kernel.relative_error(inputs)), "unwritten output must show"
    kernel.run(**inputs)
    assert kernel.relative_error(inputs) <= kernel.rtol[dtype]
    inputs["out"] *= 1.05
    assert kernel.relative_error(inputs) > kernel.rtol[dtype]


def test_torch_on_a_cpu_takes_lengths_below_the_context():
    inputs = TORCH_DECODE_ATTENTION.inputs(RandomTensors(1), **DECODED, dtype="fp32")
    inputs["lengths"] = torch.tensor([40, 1, 17], dtype=torch.int32)
    TORCH_DECODE_ATTENTION.run(**inputs)
    assert TORCH_DECODE_ATTENTION.relative_error(inputs) <= TORCH_DECODE_ATTENTION.rtol["fp32"]


def test_tensors_of_one_shape_are_three():
    """A pool would hand out one tensor for key and value, and with as many heads for query too."""
    names = []

    class Named(RandomTensors):
        def activation(self, *shape, dtype, name=""):
            names.append(name)
            return super().activation(*shape, dtype=dtype)

    TORCH_PREFILL_ATTENTION.inputs(Named(1), **PROMPT, dtype="bf16")
    assert len(set(names)) == 3


def test_each_implementation_is_there_once():
    for kernels in (DECODE_ATTENTION, PREFILL_ATTENTION):
        names = [kernel.implementation for kernel in kernels]
        assert len(set(names)) == len(names)
    assert find_kernel(PREFILL_ATTENTION, "torch") is TORCH_PREFILL_ATTENTION


@pytest.fixture
def cleared():
    attention.import_flash_attn.cache_clear()
    attention._import_flashinfer.cache_clear()
    yield
    attention.import_flash_attn.cache_clear()
    attention._import_flashinfer.cache_clear()


def test_what_is_not_installed_says_how_to_get_it(monkeypatch, cleared):
    def absent(name):
        raise OSError(f"{name}: undefined symbol\nand more")

    monkeypatch.setattr(attention, "import_module", absent)
    for kernel, package in ((FLASH_ATTN_DECODE, "flash-attn"), (FLASHINFER_DECODE, "flashinfer-python")):
        reason = kernel.why_not("sm_90", "bf16")
        assert f"pip install {package}" in reason
        assert "undefined symbol" in reason
        assert "\n" not in reason
    assert FLASH_ATTN_PREFILL.missing() == FLASH_ATTN_DECODE.missing()
    with pytest.raises(UserError, match="FlashAttention is needed"):
        attention.import_flash_attn()


def as_library(**functions):
    return lambda name: SimpleNamespace(**functions)


def test_flash_attention_gives_its_own_tensor_as_out(monkeypatch, cleared):
    """A stand-in with its signatures: queries and prompts have an axis more, and some versions give a tuple."""

    def with_kvcache(q, k_cache, v_cache, cache_seqlens):
        found = torch.full_like(q[:, 0], math.nan)
        TORCH_DECODE_ATTENTION.run(q[:, 0], k_cache, v_cache, cache_seqlens, found)
        return found[:, None]

    def func(q, k, v, causal):
        assert causal
        found = torch.empty_like(q)
        TORCH_PREFILL_ATTENTION.run(q[0], k[0], v[0], found[0])
        return found, None

    functions = {"flash_attn_with_kvcache": with_kvcache, "flash_attn_func": func}
    monkeypatch.setattr(attention, "import_module", as_library(**functions))
    for kernel, shape in ((FLASH_ATTN_DECODE, DECODED), (FLASH_ATTN_PREFILL, PROMPT)):
        inputs = kernel.inputs(RandomTensors(1), **shape, dtype="fp16")
        with torch.inference_mode():
            kernel.run(**inputs)
        assert kernel.relative_error(inputs) <= kernel.rtol["fp16"]


class Wrapper:
    """Stands in for FlashInfer's: keeps the plan, and gathers the pages that it names."""

    made = 0

    def __init__(self, workspace, layout, use_tensor_cores):
        assert (workspace.dtype, layout, use_tensor_cores) == (torch.uint8, "NHD", True)
        Wrapper.made += 1

    def plan(self, indptr, indices, last_page_len, heads, kv_heads, head_dim, page_size, q_data_type, kv_data_type):
        assert (heads, kv_heads, head_dim, q_data_type) == (6, 2, 64, kv_data_type)
        self.indptr, self.indices, self.last, self.page_size = indptr, indices, last_page_len, page_size

    def run(self, query, pages, out):
        for b, (first, end) in enumerate(zip(self.indptr[:-1], self.indptr[1:], strict=True)):
            key, value = (part[self.indices[first:end].long()].flatten(0, 1) for part in pages)
            length = (end - first - 1) * self.page_size + self.last[b : b + 1]
            one = (query[b : b + 1], key[None], value[None], length.to(torch.int32))
            TORCH_DECODE_ATTENTION.run(*one, out[b : b + 1])


def test_flashinfer_plans_once_for_equal_page_tables_and_never_during_a_capture(monkeypatch, cleared):
    monkeypatch.setattr(attention, "_PLAN_BY_SIZES", {})
    monkeypatch.setattr(attention, "import_module", as_library(BatchDecodeWithPagedKVCacheWrapper=Wrapper))
    monkeypatch.setattr(attention, "WORKSPACE_BYTES", 16)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    inputs = FLASHINFER_DECODE.inputs(RandomTensors(1), **DECODED, page_size=16, dtype="fp16")
    inputs["lengths"] = torch.tensor([40, 1, 32], dtype=torch.int32)
    for _ in range(2):
        inputs["out"].fill_(math.nan)
        FLASHINFER_DECODE.run(**inputs)
        assert FLASHINFER_DECODE.relative_error(inputs) <= FLASHINFER_DECODE.rtol["fp16"]
    assert Wrapper.made == 1
    moved = inputs | {"table": inputs["table"].flip(0)}
    FLASHINFER_DECODE.run(**moved)
    assert FLASHINFER_DECODE.relative_error(moved) <= FLASHINFER_DECODE.rtol["fp16"]
    assert Wrapper.made == 2
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    copied = moved | {"table": moved["table"].clone()}
    FLASHINFER_DECODE.run(**copied)
    assert FLASHINFER_DECODE.relative_error(copied) <= FLASHINFER_DECODE.rtol["fp16"]
    assert Wrapper.made == 2
    larger = FLASHINFER_DECODE.inputs(RandomTensors(1), **(DECODED | {"batch": 4}), page_size=16, dtype="fp16")
    with pytest.raises(UserError, match="call it before the capture"):
        FLASHINFER_DECODE.run(**larger)
