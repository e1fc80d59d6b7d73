"""The cut that decode attention runs with: a table's where one covers the shape, else the rule's. No search."""

from functools import cache

from kernels.attention_cut import Cut, rule
from kernels.tuning.attention_table import tuned
from kernels.tuning.choice import Choice
from specs.gpus import arch


@cache
def choose(
    name: str, sms: int, dtype: str, *, batch: int, context: int, heads: int, kv_heads: int, head_dim: int,
    page_size: int = 0,
) -> Choice[Cut]:  # fmt: skip
    """What a call runs with on the architecture `name` with `sms` SMs; page_size is 0 for a contiguous cache.

    Raises:
        UserError: the architecture's limits are unknown, or its table cannot be read.
    """
    table = tuned(name)
    row = table.nearest(dtype, batch, context, heads, kv_heads, head_dim, page_size) if table else None
    if row:
        return Choice(row.config, row.basis)
    return Choice(rule(arch(name), sms, dtype, pairs=batch * kv_heads, context=context, head_dim=head_dim), "rule")
