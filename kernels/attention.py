"""Attention without our own kernels: torch, FlashAttention, FlashInfer.

For decode, over a contiguous or paged cache, the file also has the tensors, work, references and checks of operands
that our kernel shares.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from math import ceil
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakIdKeyDictionary

from kernels.compile import TRITON_ARCHS
from kernels.kernel import CHECK_ELEMENTS, Inputs, Kernel, TensorSource
from specs.errors import UserError
from specs.roofline import Work
from specs.units import ITEMSIZE

DECODE_RTOL = {"fp32": 2e-5, "bf16": 4e-3, "fp16": 1e-3}
"""Largest accepted relative error of decode by dtype.

Two roundings of bf16, of the weights and of the result, cost 1.6e-3 in this norm. The rest is order of summation.
"""
HEAD_DIMS = (64, 128)
MAX_QUERIES_PER_KV_HEAD = 32
"""Most query heads of one kv head.

The accumulators of more heads do not fit into the registers of a program.
"""


class AttentionSizes(NamedTuple):
    """Sizes of one call; `context` is the capacity of the cache in tokens."""

    batch: int
    context: int
    heads: int
    kv_heads: int
    head_dim: int


def decode_work(*, batch: int, context: int, heads: int, kv_heads: int, head_dim: int, dtype: str, **_: int) -> Work:
    """Return the work: read K and V once, read q and write out once.

    Lengths and page tables add only a few bytes.
    """
    cache, queries = 2 * batch * context * kv_heads * head_dim, batch * heads * head_dim
    return Work(flops=4 * queries * context, hbm_bytes=(cache + 2 * queries) * ITEMSIZE[dtype])


def decode_inputs(
    source: TensorSource, *, batch: int, context: int, heads: int, kv_heads: int, head_dim: int, dtype: str
) -> Inputs:
    """Return the tensors of one call over a contiguous cache.

    They are query[batch, heads, head_dim], key and value[batch, context, kv_heads, head_dim], lengths[batch], out as
    query. Every sequence is as long as the context.
    """
    return _common_inputs(source, (batch, heads, head_dim), context, dtype) | {
        "key": source.weight(batch, context, kv_heads, head_dim, dtype=dtype),
        "value": source.weight(batch, context, kv_heads, head_dim, dtype=dtype),
    }


def paged_inputs(
    source: TensorSource,
    *,
    batch: int,
    context: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    page_size: int,
    dtype: str,
) -> Inputs:
    """Return the tensors of one call over a paged cache.

    They are those of `decode_inputs`, but with key_pages and value_pages[pages, page_size, kv_heads, head_dim] and
    table[batch, pages a sequence]. Pages lie in random order, as after a while of serving. The table is the same in
    every run.
    """
    each = ceil(context / page_size)
    order = torch.randperm(batch * each, generator=torch.Generator().manual_seed(batch * each))
    return _common_inputs(source, (batch, heads, head_dim), context, dtype) | {
        "key_pages": source.weight(batch * each, page_size, kv_heads, head_dim, dtype=dtype),
        "value_pages": source.weight(batch * each, page_size, kv_heads, head_dim, dtype=dtype),
        "table": source.integers(order.view(batch, each).to(torch.int32)),
    }


def _common_inputs(source: TensorSource, shape: tuple[int, int, int], context: int, dtype: str) -> Inputs:
    return {
        "query": source.activation(*shape, dtype=dtype),
        "lengths": source.integers(torch.full((shape[0],), context, dtype=torch.int32)),
        "out": source.output(*shape, dtype=dtype),
    }


def decode_reference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Return each sequence's result in float64, in slices of its tokens."""
    return _attention_reference(query, lengths, lambda b: (key[b], value[b]))


def paged_reference(
    query: torch.Tensor, key_pages: torch.Tensor, value_pages: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Return each sequence's result in float64, from pages in the order of the table."""

    def gathered(b: int) -> tuple[torch.Tensor, torch.Tensor]:
        return key_pages[table[b].long()].flatten(0, 1), value_pages[table[b].long()].flatten(0, 1)

    return _attention_reference(query, lengths, gathered)


def _attention_reference(
    query: torch.Tensor, lengths: torch.Tensor, cache: Callable[[int], tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    out = torch.empty(query.shape, dtype=torch.float64, device=query.device)
    for b, length in enumerate(lengths.tolist()):
        keys, values = (part[:length] for part in cache(b))
        tokens = max(1, CHECK_ELEMENTS // (keys.shape[1] * keys.shape[2]))
        wide = query[b].to(torch.float64).view(keys.shape[1], -1, keys.shape[2])
        scores = torch.cat([torch.einsum("gqd,tgd->gqt", wide, part.double()) for part in keys.split(tokens)], dim=2)
        weights = torch.softmax(scores * keys.shape[2] ** -0.5, dim=2)
        total = torch.zeros_like(wide)
        for share, part in zip(weights.split(tokens, dim=2), values.split(tokens), strict=True):
            total += torch.einsum("gqt,tgd->gqd", share, part.double())
        out[b] = total.view(query.shape[1:])
    return out


def check_contiguous_cache(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor, out: torch.Tensor
) -> AttentionSizes:
    """Refuse operands over a contiguous cache that would touch foreign memory.

    Raises:
        UserError: shapes, strides or dtypes that our kernel does not take.
    """
    _check_dimensions("key", key, 4, "[batch, context, kv_heads, head_dim]")
    if key.shape[0] != query.shape[0]:
        raise UserError(f"query is of {query.shape[0]} sequences and key of {key.shape[0]}; they must be the same")
    return AttentionSizes(query.shape[0], key.shape[1], *_check_common(query, key, value, lengths, out))


def check_paged_cache(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
) -> AttentionSizes:
    """Refuse operands over a paged cache that would touch foreign memory.

    The entries of the table are not checked.

    Raises:
        UserError: shapes, strides or dtypes that our kernel does not take.
    """
    _check_dimensions("key_pages", key_pages, 4, "[pages, page_size, kv_heads, head_dim]")
    _check_dimensions("table", table, 2, "[batch, pages a sequence]")
    if table.dtype != torch.int32 or table.stride(1) != 1 or table.shape[0] != query.shape[0]:
        raise UserError(
            f"table{list(table.shape)} is {table.dtype} with strides {table.stride()}; it must be int32, a row without "
            f"gaps for each of {query.shape[0]} sequences"
        )
    sizes = _check_common(query, key_pages, value_pages, lengths, out)
    return AttentionSizes(query.shape[0], table.shape[1] * key_pages.shape[1], *sizes)


def _check_common(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor, out: torch.Tensor
) -> tuple[int, int, int]:
    """Return heads, kv_heads and head_dim after checking shapes, strides and dtypes."""
    _check_dimensions("query", query, 3, "[batch, heads, head_dim]")
    (batch, heads, head_dim), kv_heads = query.shape, key.shape[2]
    if head_dim not in HEAD_DIMS:
        raise UserError(f"head_dim {head_dim}; our decode attention takes {' and '.join(map(str, HEAD_DIMS))}")
    if heads % kv_heads or heads // kv_heads > MAX_QUERIES_PER_KV_HEAD:
        raise UserError(
            f"{heads} query heads on {kv_heads} kv heads; each kv head must serve as many, {MAX_QUERIES_PER_KV_HEAD} "
            "at most"
        )
    if key.shape != value.shape or key.stride() != value.stride() or key.shape[3] != head_dim or key.stride(3) != 1:
        raise UserError(
            f"key{list(key.shape)} has strides {key.stride()} and value{list(value.shape)} {value.stride()}; both must "
            f"be of one shape and equal strides, heads of {head_dim} without gaps"
        )
    if query.stride()[1:] != (head_dim, 1) or not out.is_contiguous() or out.shape != query.shape:
        raise UserError(
            f"query{list(query.shape)} has strides {query.stride()} and out{list(out.shape)} {out.stride()}; they must "
            "be of one shape, the heads of a sequence without gaps, and out contiguous"
        )
    if not query.dtype == key.dtype == value.dtype == out.dtype:
        dtypes = f"query is {query.dtype}, key {key.dtype}, value {value.dtype} and out {out.dtype}"
        raise UserError(f"{dtypes}; convert them to one dtype")
    if lengths.shape != (batch,) or lengths.dtype != torch.int32 or not lengths.is_contiguous():
        raise UserError(f"lengths{list(lengths.shape)} is {lengths.dtype}; it must be int32, one for each of {batch}")
    return heads, kv_heads, head_dim


def _check_dimensions(name: str, tensor: torch.Tensor, dimensions: int, expected: str) -> None:
    if tensor.dim() != dimensions:
        raise UserError(f"{name} has shape {tuple(tensor.shape)}; it must be {name}{expected}")


# Baseline of decode attention: torch's scaled_dot_product_attention, with the query heads of a kv head as rows.
#
# It takes q[batch, kv_heads, group, head_dim] against k[batch, kv_heads, context, head_dim]. Nothing is repeated for
# grouped queries, and one query per sequence needs no mask.


def run_decode(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor | None, out: torch.Tensor
) -> None:
    """Run one call, then copy into `out`, since torch's function has no `out`.

    Without lengths every sequence fills the cache. On a GPU each sequence must fill it: reading lengths would block the
    stream.
    """
    batch, context, kv_heads, head_dim = key.shape
    queries = query.view(batch, kv_heads, -1, head_dim)
    mask = None
    if lengths is not None and lengths.device.type == "cpu" and int(lengths.min()) < context:
        mask = (torch.arange(context) < lengths[:, None])[:, None, None, :]
    found = scaled_dot_product_attention(queries, key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask)
    out.copy_(found.reshape(out.shape))


TORCH_DECODE_ATTENTION = Kernel(
    name="torch_decode_attention",
    op="attention",
    implementation="torch",
    inputs=decode_inputs,
    run=run_decode,
    reference=decode_reference,
    work=decode_work,
    rtol=DECODE_RTOL,
    archs=None,
)


# Libraries for decode attention: FlashAttention over a contiguous cache, FlashInfer over pages.
#
# FlashAttention-3 (`flash_attn_interface`) is preferred to FlashAttention-2 (`flash_attn`) where both are installed.
# Its functions have no `out`, and a copy would count against it. So `out` becomes the returned tensor, and earlier
# views of `out` do not see the result. FlashInfer plans before a call, from lengths and page table. Planning is not
# timed, since engines plan once a step for all layers.

WORKSPACE_BYTES = 128 * 2**20
"""Workspace for partial results, as in FlashInfer's documentation."""
LIBRARY_RTOL = {"bf16": DECODE_RTOL["bf16"], "fp16": DECODE_RTOL["fp16"]}


@cache
def import_flash_attn() -> Any:
    """Return FlashAttention's module, the newer of those that are installed.

    Raises:
        UserError: none is installed, or it does not fit this torch.
    """
    reasons = []
    for module in ("flash_attn_interface", "flash_attn"):
        try:
            return import_module(module)
        except Exception as error:  # a build for another torch or CUDA raises more than ImportError
            reasons.append(str(error).split("\n")[0])
    raise UserError(f"FlashAttention is needed: pip install flash-attn --no-build-isolation ({'; '.join(reasons)})")


@cache
def _import_flashinfer() -> Any:
    try:
        return import_module("flashinfer")
    except Exception as error:  # raises more than ImportError too
        told = str(error).split("\n")[0]
        raise UserError(f"FlashInfer is needed: pip install flashinfer-python ({told})") from error


def missing_flash_attn() -> str | None:
    """Return one line where FlashAttention cannot be imported; None where it can."""
    return _import_problem(import_flash_attn)


def missing_flashinfer() -> str | None:
    """Return one line where FlashInfer cannot be imported; None where it can."""
    return _import_problem(_import_flashinfer)


def _import_problem(library: Any) -> str | None:
    try:
        library()
    except UserError as error:
        return str(error)
    return None


def replace_storage(out: torch.Tensor, result: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
    """Make `out` the result of FlashAttention.

    Some versions return the sums of the softmax too.
    """
    found = (result[0] if isinstance(result, tuple) else result).view(out.shape)
    out.set_(found.untyped_storage(), found.storage_offset(), found.shape, found.stride())


def run_flash_attn(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor, out: torch.Tensor
) -> None:
    """Run one call of `flash_attn_with_kvcache`; `out` becomes its result."""
    replace_storage(out, import_flash_attn().flash_attn_with_kvcache(query[:, None], key, value, cache_seqlens=lengths))


class FlashInferPlan(NamedTuple):
    """FlashInfer's wrapper, planned for the pages of these sequences."""

    wrapper: Any
    table: torch.Tensor
    lengths: torch.Tensor

    def is_valid_for(self, table: torch.Tensor, lengths: torch.Tensor) -> bool:
        """Return whether the plan holds for this table and lengths; a GPU must wait."""
        return torch.equal(self.table, table) and torch.equal(self.lengths, lengths)


_PLAN_BY_SIZES: dict[tuple[object, ...], FlashInferPlan] = {}
"""Last plan by sizes; copies that a case rotates through have equal tables."""
_PLAN_BY_TABLE = WeakIdKeyDictionary()
"""Plan by page table."""


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
    """Run one call over pages; the first call with a page table plans.

    During graph capture nothing can be compared. A new table then counts as that of the last plan at these sizes.

    Raises:
        UserError: a first call at these sizes during capture.
    """
    if table not in _PLAN_BY_TABLE:
        _PLAN_BY_TABLE[table] = _plan_for(query, key_pages, table, lengths)
    _PLAN_BY_TABLE[table].wrapper.run(query, (key_pages, value_pages), out=out)


def _plan_for(
    query: torch.Tensor, key_pages: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor
) -> FlashInferPlan:
    sizes = (query.device, query.dtype, query.shape, key_pages.shape, table.shape)
    plan, capturing = _PLAN_BY_SIZES.get(sizes), torch.cuda.is_current_stream_capturing()
    if plan is None and capturing:
        raise UserError("flashinfer plans in the first call at a size: call it before the capture")
    if plan is None or not (capturing or plan.is_valid_for(table, lengths)):
        wrapper = _planned_wrapper(query, key_pages, table, lengths)
        plan = _PLAN_BY_SIZES[sizes] = FlashInferPlan(wrapper, table.clone(), lengths.clone())
    return plan


def _planned_wrapper(query: torch.Tensor, key_pages: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> Any:
    page_size = key_pages.shape[1]
    used = (lengths.cpu() + page_size - 1) // page_size
    first_page = torch.cat([torch.zeros(1, dtype=torch.int32), used.cumsum(0).to(torch.int32)])
    pages = torch.cat([row[:count] for row, count in zip(table, used.tolist(), strict=True)])
    last = (lengths.cpu() - (used - 1) * page_size).to(torch.int32)
    wrapper = _import_flashinfer().BatchDecodeWithPagedKVCacheWrapper(
        _workspace(query.device), "NHD", use_tensor_cores=True
    )
    sizes = (query.shape[1], key_pages.shape[2], query.shape[2], page_size)
    types = {"q_data_type": query.dtype, "kv_data_type": key_pages.dtype}
    wrapper.plan(first_page.to(query.device), pages, last.to(query.device), *sizes, **types)
    return wrapper


FLASH_ATTN_DECODE = replace(
    TORCH_DECODE_ATTENTION,
    name="flash_attn_decode",
    implementation="flash-attn",
    run=run_flash_attn,
    rtol=LIBRARY_RTOL,
    archs=TRITON_ARCHS,
    missing=missing_flash_attn,
)

FLASHINFER_DECODE = replace(
    TORCH_DECODE_ATTENTION,
    name="flashinfer_decode",
    implementation="flashinfer",
    inputs=paged_inputs,
    run=run_flashinfer,
    reference=paged_reference,
    rtol=LIBRARY_RTOL,
    archs=TRITON_ARCHS,
    missing=missing_flashinfer,
)


# Prefill: out[t, h] = softmax(q[t, h] · K[:t + 1, g]ᵀ / √head_dim) · V[:t + 1, g], g the kv head of query head h.
#
# Only libraries are measured: matrix products dominate, and the best libraries are near the peak.

PREFILL_RTOL = {"fp32": 2e-5, "bf16": 4e-3, "fp16": 1e-3}
"""Largest accepted relative error of prefill by dtype.

Two roundings of bf16, of the weights and of the result, cost 1.6e-3 in this norm. The rest is order of summation.
"""


def prefill_work(*, tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: str) -> Work:
    """Return the work: read q, K and V once, write out once.

    A token attends to itself and to earlier tokens.
    """
    queries, keys = tokens * heads * head_dim, tokens * kv_heads * head_dim
    return Work(flops=2 * queries * (tokens + 1), hbm_bytes=2 * (queries + keys) * ITEMSIZE[dtype])


def prefill_inputs(
    source: TensorSource, *, tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: str
) -> Inputs:
    """Return the tensors of one prompt.

    They are query[tokens, heads, head_dim], key and value[tokens, kv_heads, head_dim], out as query.
    """
    return {
        "query": source.activation(tokens, heads, head_dim, dtype=dtype, name="query"),
        "key": source.activation(tokens, kv_heads, head_dim, dtype=dtype, name="key"),
        "value": source.activation(tokens, kv_heads, head_dim, dtype=dtype, name="value"),
        "out": source.output(tokens, heads, head_dim, dtype=dtype),
    }


def run_prefill(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor) -> None:
    """Run one call with torch's choice of backend, then copy into `out`.

    torch's function has no `out`.
    """
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    out.copy_(scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1))


def run_flash_attn_prefill(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor) -> None:
    """Run one call of `flash_attn_func`; `out` becomes its result."""
    replace_storage(out, import_flash_attn().flash_attn_func(query[None], key[None], value[None], causal=True))


def prefill_reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return the result in float64, a block of queries at a time.

    Each block takes the tokens up to its last.
    """
    tokens, heads, head_dim = query.shape
    wide = query.double().view(tokens, key.shape[1], -1, head_dim)
    keys, values, blocks = key.double(), value.double(), []
    place = torch.arange(tokens, device=query.device)
    for part in place.split(max(1, CHECK_ELEMENTS // (heads * tokens))):
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
    inputs=prefill_inputs,
    run=run_prefill,
    reference=prefill_reference,
    work=prefill_work,
    rtol=PREFILL_RTOL,
    archs=None,
)

FLASH_ATTN_PREFILL = replace(
    TORCH_PREFILL_ATTENTION,
    name="flash_attn_prefill",
    implementation="flash-attn",
    run=run_flash_attn_prefill,
    rtol={"bf16": PREFILL_RTOL["bf16"], "fp16": PREFILL_RTOL["fp16"]},
    archs=TRITON_ARCHS,
    missing=missing_flash_attn,
)
