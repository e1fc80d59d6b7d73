"""The baseline of decode attention: torch's scaled_dot_product_attention, with the query heads of a kv head as rows.

q[batch, kv_heads, group, head_dim] against k[batch, kv_heads, context, head_dim]: nothing is repeated for grouped
queries, and with one query a sequence there is nothing to mask.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention

from kernels import attention_operands as operands
from kernels.kernel import Kernel


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
    inputs=operands.inputs,
    run=run,
    reference=operands.reference,
    work=operands.work,
    rtol=operands.RTOL,
    archs=None,
)
