"""What decode attention is given, contiguous or in pages: its tensors, its work, its reference, and what is refused."""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from kernels.kernel import SLICE, Draw, Inputs, Kernel
from specs.errors import UserError
from specs.roofline import Work
from specs.units import ITEMSIZE

RTOL = {"fp32": 2e-5, "bf16": 4e-3, "fp16": 1e-3}
"""Two roundings of bf16, of the weights and of the result, cost 1.6e-3 in this norm; the rest is order of summation."""
HEAD_DIMS = (64, 128)
MOST_QUERIES = 32
"""Query heads of one kv head: the accumulators of more do not fit into the registers of a program."""


class Sizes(NamedTuple):
    """Of one call; `context` is what the cache has room for."""

    batch: int
    context: int
    heads: int
    kv_heads: int
    head_dim: int


def work(*, batch: int, context: int, heads: int, kv_heads: int, head_dim: int, dtype: str, **_: int) -> Work:
    """Read K and V once, read q and write out once; lengths and page tables are a few bytes beside them."""
    cache, queries = 2 * batch * context * kv_heads * head_dim, batch * heads * head_dim
    return Work(flops=4 * queries * context, hbm_bytes=(cache + 2 * queries) * ITEMSIZE[dtype])


def inputs(draw: Draw, *, batch: int, context: int, heads: int, kv_heads: int, head_dim: int, dtype: str) -> Inputs:
    """query[batch, heads, head_dim], key and value[batch, context, kv_heads, head_dim], lengths[batch], out as query.

    Every sequence is as long as the context.
    """
    return _around(draw, (batch, heads, head_dim), context, dtype) | {
        "key": draw.weight(batch, context, kv_heads, head_dim, dtype=dtype),
        "value": draw.weight(batch, context, kv_heads, head_dim, dtype=dtype),
    }


def paged_inputs(
    draw: Draw, *, batch: int, context: int, heads: int, kv_heads: int, head_dim: int, page_size: int, dtype: str
) -> Inputs:
    """As above, but key_pages and value_pages[pages, page_size, kv_heads, head_dim] and table[batch, pages a sequence].

    Pages lie in no order, as after a while of serving; the table is the same in every run.
    """
    each = ceil(context / page_size)
    order = torch.randperm(batch * each, generator=torch.Generator().manual_seed(batch * each))
    return _around(draw, (batch, heads, head_dim), context, dtype) | {
        "key_pages": draw.weight(batch * each, page_size, kv_heads, head_dim, dtype=dtype),
        "value_pages": draw.weight(batch * each, page_size, kv_heads, head_dim, dtype=dtype),
        "table": draw.integers(order.view(batch, each).to(torch.int32)),
    }


def _around(draw: Draw, shape: tuple[int, int, int], context: int, dtype: str) -> Inputs:
    return {
        "query": draw.activation(*shape, dtype=dtype),
        "lengths": draw.integers(torch.full((shape[0],), context, dtype=torch.int32)),
        "out": draw.output(*shape, dtype=dtype),
    }


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Each sequence in float64, in slices of its tokens."""
    return _reference(query, lengths, lambda b: (key[b], value[b]))


def paged_reference(
    query: torch.Tensor, key_pages: torch.Tensor, value_pages: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """The same of pages in the order of the table."""

    def gathered(b: int) -> tuple[torch.Tensor, torch.Tensor]:
        return key_pages[table[b].long()].flatten(0, 1), value_pages[table[b].long()].flatten(0, 1)

    return _reference(query, lengths, gathered)


def _reference(
    query: torch.Tensor, lengths: torch.Tensor, cache: Callable[[int], tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    out = torch.empty(query.shape, dtype=torch.float64, device=query.device)
    for b, length in enumerate(lengths.tolist()):
        keys, values = (part[:length] for part in cache(b))
        tokens = max(1, SLICE // (keys.shape[1] * keys.shape[2]))
        wide = query[b].to(torch.float64).view(keys.shape[1], -1, keys.shape[2])
        scores = torch.cat([torch.einsum("gqd,tgd->gqt", wide, part.double()) for part in keys.split(tokens)], dim=2)
        weights = torch.softmax(scores * keys.shape[2] ** -0.5, dim=2)
        total = torch.zeros_like(wide)
        for share, part in zip(weights.split(tokens, dim=2), values.split(tokens), strict=True):
            total += torch.einsum("gqt,tgd->gqd", share, part.double())
        out[b] = total.view(query.shape[1:])
    return out


def check(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor, out: torch.Tensor
) -> Sizes:
    """Refuse what would touch foreign memory: contiguous caches.

    Raises:
        UserError: shapes, strides or dtypes that our kernel does not take.
    """
    _shape("key", key, 4, "[batch, context, kv_heads, head_dim]")
    if key.shape[0] != query.shape[0]:
        raise UserError(f"query is of {query.shape[0]} sequences and key of {key.shape[0]}; they must be the same")
    return Sizes(query.shape[0], key.shape[1], *_check(query, key, value, lengths, out))


def check_paged(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
) -> Sizes:
    """The same of pages; what stands in the table is taken on trust.

    Raises:
        UserError: as above.
    """
    _shape("key_pages", key_pages, 4, "[pages, page_size, kv_heads, head_dim]")
    _shape("table", table, 2, "[batch, pages a sequence]")
    if table.dtype != torch.int32 or table.stride(1) != 1 or table.shape[0] != query.shape[0]:
        raise UserError(
            f"table{list(table.shape)} is {table.dtype} with strides {table.stride()}; it must be int32, a row without "
            f"gaps for each of {query.shape[0]} sequences"
        )
    sizes = _check(query, key_pages, value_pages, lengths, out)
    return Sizes(query.shape[0], table.shape[1] * key_pages.shape[1], *sizes)


def _check(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor, out: torch.Tensor
) -> tuple[int, int, int]:
    """heads, kv_heads and head_dim."""
    _shape("query", query, 3, "[batch, heads, head_dim]")
    (batch, heads, head_dim), kv_heads = query.shape, key.shape[2]
    if head_dim not in HEAD_DIMS:
        raise UserError(f"head_dim {head_dim}; our decode attention takes {' and '.join(map(str, HEAD_DIMS))}")
    if heads % kv_heads or heads // kv_heads > MOST_QUERIES:
        raise UserError(
            f"{heads} query heads on {kv_heads} kv heads; each kv head must serve as many, {MOST_QUERIES} at most"
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


def _shape(name: str, tensor: torch.Tensor, dimensions: int, meant: str) -> None:
    if tensor.dim() != dimensions:
        raise UserError(f"{name} has shape {tuple(tensor.shape)}; it must be {name}{meant}")


# The baseline of decode attention: torch's scaled_dot_product_attention, with the query heads of a kv head as rows.
#
# q[batch, kv_heads, group, head_dim] against k[batch, kv_heads, context, head_dim]: nothing is repeated for grouped
# queries, and with one query a sequence there is nothing to mask.


def run(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor | None, out: torch.Tensor
) -> None:
    """One call, then a copy into `out`, for torch takes no room to write into.

    Without lengths every sequence fills the cache. On a GPU each has to: to read them would hold up the stream.
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
    inputs=inputs,
    run=run,
    reference=reference,
    work=work,
    rtol=RTOL,
    archs=None,
)
