"""One query a sequence: out[b, h] = softmax(q[b, h] · K[b, g]ᵀ / √head_dim) · V[b, g], g the kv head of query head h.

The time is that of reading K and V. They stream once, past all query heads of their kv head at the same time. What a
program does is in kernels/flash_decoding.py, how many there are in kernels/attention_cut.py, or in a table.

- Where batch x kv_heads make too few programs, `split` of them share a sequence, each with its part of the tokens that
  this sequence has: short ones are cut as finely as long ones. Each leaves maximum, sum and accumulator, and counts
  itself in; the last of up to 16 adds these up in the order of the tokens, whoever came when, and where there are more
  than 16 the last of those that added up does the same once more. So one launch does it all (a second one for the
  merge would cost a launch on top, as much as small batches take at all), and two calls give the same bits.
- Neighbouring programs take the kv heads of the same tokens, whose rows lie side by side in the cache.
- A paged cache differs in one thing: where the rows of a tile begin. The page of the next tile is looked up while
  this one is worked on.
"""

from dataclasses import replace

import torch

from kernels import attention_operands as operands
from kernels.attention_cut import FAN, Cut, sms_of, sms_of_arch
from kernels.compile import OPTIONS, TRITON_ARCHS, Variant
from kernels.flash_decoding import flash_decode
from kernels.kernel import Kernel
from kernels.operands import dtype_of
from kernels.timing.device import current_device
from kernels.triton_utils import missing_triton_launch
from kernels.tuning.attention_choice import choose
from kernels.tuning.choice import arch_of
from kernels.workspace import Workspace, workspace


def rows(group: int) -> int:
    """Rows of the matrix instruction that `group` query heads take."""
    return max(16, 1 << (group - 1).bit_length())


def room(cut: Cut, *, pairs: int, group: int, head_dim: int) -> tuple[int, int]:
    """Fp32 elements of partial results, and counters, that one call takes of its workspace."""
    return cut.cells(pairs) * rows(group) * (head_dim + 2), cut.counters(pairs)


def constexprs(cut: Cut, *, group: int, head_dim: int, page: int, delay: int = 0) -> dict[str, int]:
    """Arguments of the kernel that its machine code depends on; `page` is 0 for a contiguous cache."""
    return {
        "GROUP": group,
        "ROWS": rows(group),
        "HEAD_DIM": head_dim,
        "BLOCK": cut.block,
        "PAGE": page,
        "LEVELS": cut.levels,
        "FAN": FAN,
        "STAGES": cut.stages,
        "DELAY": delay,
    }


def variant(cut: Cut, dtype: str, *, group: int, head_dim: int, page: int = 0) -> Variant:
    """The compiled form of a cut for `group` query heads a kv head."""
    tensors = dict.fromkeys(("query", "key", "value", "out"), f"*{dtype}")
    strides = ("query_stride", "block_stride", "token_stride", "head_stride", "table_stride")
    integers = dict.fromkeys(("context", "kv_heads", "split", *strides), "i32")
    signature = tensors | {"lengths": "*i32", "partials": "*fp32", "arrived": "*i32"} | integers
    given = constexprs(cut, group=group, head_dim=head_dim, page=page)
    if page:
        signature["table"] = "*i32"
    return Variant(flash_decode, signature, given if page else given | {"table": None}, cut.warps, cut.stages)


def launch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
    cut: Cut,
    *,
    table: torch.Tensor | None = None,
    scratch: Workspace | None = None,
    delay: int = 0,
) -> None:
    """Run one cut.

    Args:
        query: query[batch, heads, head_dim], the heads of a sequence without gaps.
        key: key[batch, context, kv_heads, head_dim] or, with a table, key[pages, page_size, kv_heads, head_dim]; any
            strides but that of head_dim.
        value: as key, with the same strides.
        lengths: lengths[batch] int32, from 1 to context: tokens that each sequence has.
        out: out[batch, heads, head_dim], contiguous.
        cut: how to cut the work.
        table: table[batch, pages a sequence] int32: where the pages of each sequence are.
        scratch: own workspace; without it calls on a device share one, and must be on one stream.
        delay: nanoseconds that programs wait at random before they pass their results on, for tests.

    Raises:
        UserError: operands that do not fit together or are not laid out so.
    """
    if table is None:
        sizes = operands.check(query, key, value, lengths, out)
    else:
        sizes = operands.check_paged(query, key, value, table, lengths, out)
    _start(query, key, value, lengths, out, sizes, cut, table, scratch or workspace(query.device), delay)


def _start(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
    sizes: operands.Sizes,
    cut: Cut,
    table: torch.Tensor | None,
    scratch: Workspace,
    delay: int = 0,
) -> None:
    group, pairs = sizes.heads // sizes.kv_heads, sizes.batch * sizes.kv_heads
    partials, arrived = scratch.turn(*room(cut, pairs=pairs, group=group, head_dim=sizes.head_dim))
    page, table_stride = (0, 0) if table is None else (key.shape[1], table.stride(0))
    constants = constexprs(cut, group=group, head_dim=sizes.head_dim, page=page, delay=delay)
    options = {"num_warps": cut.warps, "num_stages": cut.stages, **OPTIONS}
    strides = (query.stride(0), *key.stride()[:3], table_stride)
    with torch.cuda.device_of(query):  # Triton launches on the current device
        flash_decode[(pairs * cut.split,)](
            query, key, value, table, lengths, out, partials, arrived,
            sizes.context, sizes.kv_heads, cut.split, *strides, **constants, **options,
        )  # fmt: skip


def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor, out: torch.Tensor) -> None:
    """One launch over a contiguous cache, cut as the table or the rule says; calls on a device share a workspace.

    Raises:
        UserError: a dtype that is not ours, or operands that do not fit together.
    """
    sizes = operands.check(query, key, value, lengths, out)
    _start(query, key, value, lengths, out, sizes, _chosen(query, sizes, 0), None, workspace(query.device))


def run_paged(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """The same over pages of a cache.

    Raises:
        UserError: as above.
    """
    sizes = operands.check_paged(query, key_pages, value_pages, table, lengths, out)
    cut = _chosen(query, sizes, key_pages.shape[1])
    _start(query, key_pages, value_pages, lengths, out, sizes, cut, table, workspace(query.device))


def _chosen(query: torch.Tensor, sizes: operands.Sizes, page_size: int) -> Cut:
    dtype, device = dtype_of(query, "triton_decode_attention"), query.device
    return choose(arch_of(device), sms_of(device), dtype, **sizes._asdict(), page_size=page_size).config


def configuration(*, arch: str, dtype: str, page_size: int = 0, **shape: int) -> str:
    """The choice in words, for the record: on the GPU at hand, else on the one that stands for `arch`."""
    here = current_device()
    sms = sms_of(torch.device(here.kind)) if here.arch == arch else sms_of_arch(arch)
    return str(choose(arch, sms, dtype, **shape, page_size=page_size))


TRITON_DECODE_ATTENTION = Kernel(
    name="triton_decode_attention",
    op="attention",
    implementation="triton",
    inputs=operands.inputs,
    run=run,
    reference=operands.reference,
    work=operands.work,
    rtol=operands.RTOL,
    archs=TRITON_ARCHS,
    missing=missing_triton_launch,
    configuration=configuration,
)

TRITON_PAGED_ATTENTION = replace(
    TRITON_DECODE_ATTENTION,
    name="triton_paged_attention",
    implementation="triton-paged",
    inputs=operands.paged_inputs,
    run=run_paged,
    reference=operands.paged_reference,
)
