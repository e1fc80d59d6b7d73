"""A prompt: out[t, h] = softmax(q[t, h] · K[:t + 1, g]ᵀ / √head_dim) · V[:t + 1, g], g the kv head of query head h.

Measured as libraries do it, not written anew: matrix products fill it, and the best of them are near the peak.
"""

from dataclasses import replace

import torch
from torch.nn.functional import scaled_dot_product_attention

from kernels.compile import TRITON_ARCHS
from kernels.kernel import SLICE, Draw, Inputs, Kernel
from kernels.library_attention import become, flash_attn, flash_attn_missing
from specs.roofline import Work
from specs.units import ITEMSIZE

RTOL = {"fp32": 2e-5, "bf16": 4e-3, "fp16": 1e-3}
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


def run_flash_attn(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor) -> None:
    """One call of `flash_attn_func`; `out` becomes what it gives, as in kernels/library_attention.py."""
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
    rtol=RTOL,
    archs=None,
)

FLASH_ATTN_PREFILL = replace(
    TORCH_PREFILL_ATTENTION,
    name="flash_attn_prefill",
    implementation="flash-attn",
    run=run_flash_attn,
    rtol={dtype: RTOL[dtype] for dtype in ("bf16", "fp16")},
    archs=TRITON_ARCHS,
    missing=flash_attn_missing,
)
