"""The rivals of decode attention: FlashAttention over a contiguous cache, FlashInfer over pages.

FlashAttention-3 (`flash_attn_interface`) goes before FlashAttention-2 (`flash_attn`) where both are there. Its
functions take no room to write into, and a copy would be charged to it: `out` becomes the tensor that it gives, so
that views of `out` made before do not see the result. FlashInfer plans ahead of a call, from lengths and page table;
that is not timed, as engines do it once a step for all layers.
"""

from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakIdKeyDictionary

from kernels import attention as operands
from kernels.attention import TORCH_DECODE_ATTENTION
from kernels.compile import TRITON_ARCHS
from kernels.kernel import SLICE, Draw, Inputs, Kernel
from specs.errors import UserError
from specs.roofline import Work
from specs.units import ITEMSIZE

WORKSPACE_BYTES = 128 * 2**20
"""What FlashInfer's documentation gives a wrapper for partial results."""
RTOL = {dtype: operands.RTOL[dtype] for dtype in ("bf16", "fp16")}


@cache
def flash_attn() -> Any:
    """FlashAttention, the newer of those that are installed.

    Raises:
        UserError: none is, or it does not fit this torch.
    """
    reasons = []
    for module in ("flash_attn_interface", "flash_attn"):
        try:
            return import_module(module)
        except Exception as error:  # a build for another torch or CUDA raises more than ImportError
            reasons.append(str(error).split("\n")[0])
    raise UserError(f"FlashAttention is needed: pip install flash-attn --no-build-isolation ({'; '.join(reasons)})")


@cache
def _flashinfer() -> Any:
    try:
        return import_module("flashinfer")
    except Exception as error:  # likewise
        told = str(error).split("\n")[0]
        raise UserError(f"FlashInfer is needed: pip install flashinfer-python ({told})") from error


def flash_attn_missing() -> str | None:
    """One line where FlashAttention cannot be imported."""
    return _refusal(flash_attn)


def flashinfer_missing() -> str | None:
    """One line where FlashInfer cannot be imported."""
    return _refusal(_flashinfer)


def _refusal(library: Any) -> str | None:
    try:
        library()
    except UserError as error:
        return str(error)
    return None


def become(out: torch.Tensor, result: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
    """Make `out` the result of FlashAttention, of which some versions give the sums of the softmax beside it."""
    found = (result[0] if isinstance(result, tuple) else result).view(out.shape)
    out.set_(found.untyped_storage(), found.storage_offset(), found.shape, found.stride())


def run_flash_attn(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor, out: torch.Tensor
) -> None:
    """One call of `flash_attn_with_kvcache`; `out` becomes what it gives."""
    become(out, flash_attn().flash_attn_with_kvcache(query[:, None], key, value, cache_seqlens=lengths))


class Plan(NamedTuple):
    """FlashInfer's wrapper, planned for the pages of these sequences."""

    wrapper: Any
    table: torch.Tensor
    lengths: torch.Tensor

    def serves(self, table: torch.Tensor, lengths: torch.Tensor) -> bool:
        """Whether it holds for these too; on a GPU that waits for it."""
        return torch.equal(self.table, table) and torch.equal(self.lengths, lengths)


_PLANS: dict[tuple[object, ...], Plan] = {}
"""The last plan for each size: the copies that a case rotates through have equal tables."""
_PLANNED = WeakIdKeyDictionary()
"""By page table: its plan."""


@cache
def _workspace(device: torch.device) -> torch.Tensor:
    return torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)


def run_flashinfer(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """One call over pages; the first with a page table plans.

    A table that is first met while a graph is captured, where nothing can be compared, is taken for that of the last
    plan at these sizes.

    Raises:
        UserError: a first call at these sizes during capture.
    """
    if table not in _PLANNED:
        _PLANNED[table] = _planned(query, key_pages, table, lengths)
    _PLANNED[table].wrapper.run(query, (key_pages, value_pages), out=out)


def _planned(query: torch.Tensor, key_pages: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> Plan:
    sizes = (query.device, query.dtype, query.shape, key_pages.shape, table.shape)
    plan, capturing = _PLANS.get(sizes), torch.cuda.is_current_stream_capturing()
    if plan is None and capturing:
        raise UserError("flashinfer plans in the first call at a size: call it before the capture")
    if plan is None or not (capturing or plan.serves(table, lengths)):
        wrapper = _wrapper(query, key_pages, table, lengths)
        plan = _PLANS[sizes] = Plan(wrapper, table.clone(), lengths.clone())
    return plan


def _wrapper(query: torch.Tensor, key_pages: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> Any:
    page_size = key_pages.shape[1]
    used = (lengths.cpu() + page_size - 1) // page_size
    first_page = torch.cat([torch.zeros(1, dtype=torch.int32), used.cumsum(0).to(torch.int32)])
    pages = torch.cat([row[:count] for row, count in zip(table, used.tolist(), strict=True)])
    last = (lengths.cpu() - (used - 1) * page_size).to(torch.int32)
    wrapper = _flashinfer().BatchDecodeWithPagedKVCacheWrapper(_workspace(query.device), "NHD", use_tensor_cores=True)
    sizes = (query.shape[1], key_pages.shape[2], query.shape[2], page_size)
    types = {"q_data_type": query.dtype, "kv_data_type": key_pages.dtype}
    wrapper.plan(first_page.to(query.device), pages, last.to(query.device), *sizes, **types)
    return wrapper


FLASH_ATTN_DECODE = replace(
    TORCH_DECODE_ATTENTION,
    name="flash_attn_decode",
    implementation="flash-attn",
    run=run_flash_attn,
    rtol=RTOL,
    archs=TRITON_ARCHS,
    missing=flash_attn_missing,
)

FLASHINFER_DECODE = replace(
    TORCH_DECODE_ATTENTION,
    name="flashinfer_decode",
    implementation="flashinfer",
    inputs=operands.paged_inputs,
    run=run_flashinfer,
    reference=operands.paged_reference,
    rtol=RTOL,
    archs=TRITON_ARCHS,
    missing=flashinfer_missing,
)


# A prompt: out[t, h] = softmax(q[t, h] · K[:t + 1, g]ᵀ / √head_dim) · V[:t + 1, g], g the kv head of query head h.
#
# Measured as libraries do it, not written anew: matrix products fill it, and the best of them are near the peak.

PREFILL_RTOL = {"fp32": 2e-5, "bf16": 4e-3, "fp16": 1e-3}
"""Two roundings of bf16, of the weights and of the result, cost 1.6e-3 in this norm; the rest is order of summation."""


def work(*, tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: str) -> Work:
    """Read q, K and V once, write out once; a token attends to itself and to those before it."""
    queries, keys = tokens * heads * head_dim, tokens * kv_heads * head_dim
    return Work(flops=2 * queries * (tokens + 1), hbm_bytes=2 * (queries + keys) * ITEMSIZE[dtype])


def inputs(draw: Draw, *, tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: str) -> Inputs:
    """query[tokens, heads, head_dim], key and value[tokens, kv_heads, head_dim], out as query."""
    return {
        "query": draw.activation(tokens, heads, head_dim, dtype=dtype, name="query"),
        "key": draw.activation(tokens, kv_heads, head_dim, dtype=dtype, name="key"),
        "value": draw.activation(tokens, kv_heads, head_dim, dtype=dtype, name="value"),
        "out": draw.output(tokens, heads, head_dim, dtype=dtype),
    }


def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor) -> None:
    """One call; torch picks the backend. Then a copy into `out`, for it takes no room to write into."""
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    out.copy_(scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1))


def run_flash_attn_prefill(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor) -> None:
    """One call of `flash_attn_func`; `out` becomes what it gives, as in kernels/attention_libraries.py."""
    become(out, flash_attn().flash_attn_func(query[None], key[None], value[None], causal=True))


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """In float64, a block of queries at a time, against the tokens up to its last."""
    tokens, heads, head_dim = query.shape
    wide = query.double().view(tokens, key.shape[1], -1, head_dim)
    keys, values, blocks = key.double(), value.double(), []
    place = torch.arange(tokens, device=query.device)
    for part in place.split(max(1, SLICE // (heads * tokens))):
        end = int(part[-1]) + 1
        scores = torch.einsum("sgqd,tgd->gqst", wide[part], keys[:end]) * head_dim**-0.5
        later = place[:end] > part[:, None]
        weights = torch.softmax(scores.masked_fill(later, -torch.inf), dim=3)
        blocks.append(torch.einsum("gqst,tgd->sgqd", weights, values[:end]).reshape(-1, heads, head_dim))
    return torch.cat(blocks)


TORCH_PREFILL_ATTENTION = Kernel(
    name="torch_prefill_attention",
    op="attention",
    implementation="torch",
    inputs=inputs,
    run=run,
    reference=reference,
    work=work,
    rtol=PREFILL_RTOL,
    archs=None,
)

FLASH_ATTN_PREFILL = replace(
    TORCH_PREFILL_ATTENTION,
    name="flash_attn_prefill",
    implementation="flash-attn",
    run=run_flash_attn_prefill,
    rtol={dtype: PREFILL_RTOL[dtype] for dtype in ("bf16", "fp16")},
    archs=TRITON_ARCHS,
    missing=flash_attn_missing,
)
