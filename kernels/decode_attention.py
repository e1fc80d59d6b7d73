"""Decode attention in Triton, over a contiguous or paged cache.

Each sequence has one query:

    out[b, h] = softmax(q[b, h] · K[b, g]ᵀ / √head_dim) · V[b, g], g the kv head of query head h

The time is that of reading K and V. They stream once, for all query heads of their kv head at the same time. The number
of programs comes from kernels/configs/attention.py or a tuned table.
- Where batch x kv_heads make too few programs, `split` programs share a sequence, each with a part of its tokens. Short
  sequences are cut as finely as long sequences. Each program leaves maximum, sum and accumulator, and counts itself in.
  The last of up to 16 adds these up in the order of the tokens, in any order of arrival. With more than 16 programs the
  last of the adding programs does the same once more. So one launch does all the work, where a launch for the merge
  would cost as much as a small batch. Two calls give the same bits.
- Neighbouring programs take the kv heads of the same tokens, whose rows are adjacent in the cache.
- A paged cache differs only in the start of a tile's rows. The page of the next tile is looked up during the work on
  the current tile.
"""

from dataclasses import replace

import torch

from kernels import attention as operands
from kernels.compile import LAUNCH_OPTIONS, TRITON_ARCHS, TritonVariant
from kernels.configs.attention import MERGE_FAN_IN, SplitConfig, arch_sm_count, choose_split_config, sm_count
from kernels.configs.dispatch import device_arch
from kernels.kernel import Kernel
from kernels.operands import Workspace, dtype_name, shared_workspace
from kernels.timing.device import current_device
from kernels.triton_utils import missing_triton_launch, stall, tl, triton

# Device code: one kv head of one sequence, with all of its tokens or a part of them.
#
# Query heads fill the rows of the matrix instruction, padded to 16. The instruction is that of a warp on every
# architecture: instructions with 64 rows and more would be mostly padding, and memory sets the time. The softmax is
# computed in fp32 along the way: a running maximum, exp2, and sums that each thread keeps to itself until the end.
#
# A part leaves, for each query head, its largest score, the sum of 2^(score − largest), and the sum of the values
# weighted so. Two such results are added after scaling both to the larger maximum. A slot of fp32 holds [rows,
# head_dim] weighted values, then [rows] maxima, then [rows] sums; padded rows stay unwritten.

LEAST = tl.constexpr(-3.0e38)
"""Below every score and finite, so its distance to itself is 0.

A part without tokens thus gives no NaN.
"""


@triton.jit
def _page(table: tl.tensor, start: int, end: int, BLOCK: tl.constexpr, PAGE: tl.constexpr) -> tl.tensor:
    """Of a tile that begins at `start`: its page where one holds it all, else that of each token."""
    token = start if PAGE % BLOCK == 0 else start + tl.arange(0, BLOCK)
    return tl.load(table + token // PAGE, mask=token < end, other=0, cache_modifier=".cg")


@triton.jit
def _leave(
    slot: tl.tensor,
    top: tl.tensor,
    whole: tl.tensor,
    total: tl.tensor,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
) -> None:
    """Write a program's result to its slot, and wait until all of its threads have."""
    row, column = tl.arange(0, ROWS), tl.arange(0, HEAD_DIM)
    tl.store(slot + row[:, None] * HEAD_DIM + column[None, :], total, mask=(row < GROUP)[:, None])
    tl.store(slot + ROWS * HEAD_DIM + row, top, mask=row < GROUP)
    tl.store(slot + ROWS * (HEAD_DIM + 1) + row, whole, mask=row < GROUP)
    tl.debug_barrier()  # one thread counts the program in, and its release covers what all have stored


@triton.jit
def _merged(
    first: tl.tensor, count: int, FAN: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Maximum, sum and accumulator of `count` slots, added up in their order; L1 knows nothing of the others."""
    CELL: tl.constexpr = ROWS * (HEAD_DIM + 2)
    row, column, every = tl.arange(0, ROWS), tl.arange(0, HEAD_DIM), tl.arange(0, FAN)
    tops = first + ROWS * HEAD_DIM + row
    there = (every < count)[:, None] & (row < GROUP)[None, :]
    seen = tl.load(tops[None, :] + every[:, None] * CELL, mask=there, other=LEAST, cache_modifier=".cg")
    top = tl.max(seen, axis=0)
    whole = tl.where(row < GROUP, 0.0, 1.0)  # nothing is divided by zero in padded rows
    total = tl.zeros([ROWS, HEAD_DIM], tl.float32)
    for one in tl.range(0, FAN, loop_unroll_factor=4):  # all 16 at once would take registers that make it spill
        given = (row < GROUP) & (one < count)
        own = tl.load(tops + one * CELL, mask=given, other=LEAST, cache_modifier=".cg")
        fade = tl.exp2(own - top)
        whole += fade * tl.load(tops + (one * CELL + ROWS), mask=given, other=0.0, cache_modifier=".cg")
        cell = first + one * CELL + row[:, None] * HEAD_DIM + column[None, :]
        total += fade[:, None] * tl.load(cell, mask=given[:, None], other=0.0, cache_modifier=".cg")
    return top, whole, total


@triton.jit(do_not_specialize=["context", "kv_heads", "split", "table_stride"])
def flash_decode(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    table: tl.tensor,
    lengths: tl.tensor,
    out: tl.tensor,
    partials: tl.tensor,
    arrived: tl.tensor,
    context: int,
    kv_heads: int,
    split: int,
    query_stride: int,
    block_stride: int,
    token_stride: int,
    head_stride: int,
    table_stride: int,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
    LEVELS: tl.constexpr,
    FAN: tl.constexpr,
    STAGES: tl.constexpr,
    DELAY: tl.constexpr,
) -> None:
    """One program of kv_heads x split x batch, in this order: programs side by side read rows side by side.

    A cache is rows of one head that lie `head_stride` apart within a token, tokens `token_stride` apart within a block,
    which is a sequence or, with a table, a page of PAGE tokens.
    """
    head = tl.program_id(0) % kv_heads
    part = tl.program_id(0) // kv_heads % split
    sequence = tl.program_id(0) // kv_heads // split
    length = tl.minimum(tl.load(lengths + sequence, cache_modifier=".cg"), context)
    steps = tl.cdiv(tl.cdiv(length, BLOCK), split)
    begin = part * steps * BLOCK
    end = tl.minimum(begin + steps * BLOCK, length)

    SCALE: tl.constexpr = 1.4426950408889634 / HEAD_DIM**0.5  # scores in powers of two: exp(x) is exp2(x log2 e)
    row, column, within = tl.arange(0, ROWS), tl.arange(0, HEAD_DIM), tl.arange(0, BLOCK)
    queries = query + sequence.to(tl.int64) * query_stride + (head * GROUP + row)[:, None] * HEAD_DIM + column[None, :]
    asked = tl.load(queries, mask=(row < GROUP)[:, None], other=0.0)
    cache = head.to(tl.int64) * head_stride  # int64: caches pass 2^31 elements
    pages = table
    if PAGE:
        pages = table + sequence.to(tl.int64) * table_stride
        page = _page(pages, begin, end, BLOCK, PAGE)
    else:
        cache += sequence.to(tl.int64) * block_stride
        page = 0
    top = tl.full([ROWS], LEAST, tl.float32)
    sums = tl.zeros([ROWS, BLOCK], tl.float32)  # added up across threads at the end, once
    total = tl.zeros([ROWS, HEAD_DIM], tl.float32)
    for start in tl.range(begin, end, BLOCK, num_stages=STAGES):
        token = start + within
        given = token < end
        if PAGE:
            place = page.to(tl.int64) * block_stride + (token % PAGE) * token_stride
            page = _page(pages, start + BLOCK, end, BLOCK, PAGE)
        else:
            place = token.to(tl.int64) * token_stride
        where = (cache + place)[:, None] + column[None, :]
        keys = tl.load(key + where, mask=given[:, None], other=0.0)
        scores = tl.dot(asked, tl.trans(keys), input_precision="ieee") * SCALE  # else fp32 is rounded to tf32
        scores = tl.where(given[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1))
        weights, fade = tl.exp2(scores - higher[:, None]), tl.exp2(top - higher)
        values = tl.load(value + where, mask=given[:, None], other=0.0)
        sums = sums * fade[:, None] + weights
        total = tl.dot(weights.to(values.dtype), values, total * fade[:, None], input_precision="ieee")
        top = higher
    whole = tl.sum(sums, axis=1)

    pair = sequence * kv_heads + head
    target = out + (pair.to(tl.int64) * GROUP + row)[:, None] * HEAD_DIM + column[None, :]
    inside = (row < GROUP)[:, None]
    if LEVELS == 0:
        tl.store(target, total / whole[:, None], mask=inside)
    else:
        CELL: tl.constexpr = ROWS * (HEAD_DIM + 2)
        groups = tl.cdiv(split, FAN)
        group = part // FAN
        slots, counters = partials + pair.to(tl.int64) * (split + groups) * CELL, arrived + pair * (groups + 1)
        if DELAY:
            stall(DELAY)
        _leave(slots + part * CELL, top, whole, total, GROUP, ROWS, HEAD_DIM)
        members = tl.minimum(FAN, split - group * FAN)
        if tl.atomic_add(counters + group, 1, sem="acq_rel", scope="gpu") == members - 1:
            tl.store(counters + group, 0)
            top, whole, total = _merged(slots + group * FAN * CELL, members, FAN, GROUP, ROWS, HEAD_DIM)
            if LEVELS == 1:
                tl.store(target, total / whole[:, None], mask=inside)
            else:
                _leave(slots + (split + group) * CELL, top, whole, total, GROUP, ROWS, HEAD_DIM)
                if tl.atomic_add(counters + groups, 1, sem="acq_rel", scope="gpu") == groups - 1:
                    tl.store(counters + groups, 0)
                    top, whole, total = _merged(slots + split * CELL, groups, FAN, GROUP, ROWS, HEAD_DIM)
                    tl.store(target, total / whole[:, None], mask=inside)


def padded_rows(group: int) -> int:
    """Return the rows of the matrix instruction for `group` query heads."""
    return max(16, 1 << (group - 1).bit_length())


def workspace_sizes(config: SplitConfig, *, pairs: int, group: int, head_dim: int) -> tuple[int, int]:
    """Return the fp32 elements and counters that one call takes of its workspace."""
    return config.partial_count(pairs) * padded_rows(group) * (head_dim + 2), config.counter_count(pairs)


def constexprs(config: SplitConfig, *, group: int, head_dim: int, page: int, delay: int = 0) -> dict[str, int]:
    """Return the kernel's compile-time arguments; `page` is 0 for a contiguous cache."""
    return {
        "GROUP": group,
        "ROWS": padded_rows(group),
        "HEAD_DIM": head_dim,
        "BLOCK": config.block,
        "PAGE": page,
        "LEVELS": config.merge_levels,
        "FAN": MERGE_FAN_IN,
        "STAGES": config.stages,
        "DELAY": delay,
    }


def attention_variant(config: SplitConfig, dtype: str, *, group: int, head_dim: int, page: int = 0) -> TritonVariant:
    """Return the compiled form of a cut for `group` query heads per kv head."""
    tensors = dict.fromkeys(("query", "key", "value", "out"), f"*{dtype}")
    strides = ("query_stride", "block_stride", "token_stride", "head_stride", "table_stride")
    integers = dict.fromkeys(("context", "kv_heads", "split", *strides), "i32")
    signature = tensors | {"lengths": "*i32", "partials": "*fp32", "arrived": "*i32"} | integers
    given = constexprs(config, group=group, head_dim=head_dim, page=page)
    if page:
        signature["table"] = "*i32"
    return TritonVariant(
        flash_decode, signature, given if page else given | {"table": None}, config.warps, config.stages
    )


def launch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
    config: SplitConfig,
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
        lengths: lengths[batch] int32, from 1 to context: tokens of each sequence.
        out: out[batch, heads, head_dim], contiguous.
        config: cut of the work.
        table: table[batch, pages a sequence] int32: page numbers of each sequence.
        scratch: own workspace; without it calls on a device share a workspace, and must be on one stream.
        delay: nanoseconds that programs wait at random before they pass their results on, for tests.

    Raises:
        UserError: operands of mismatched shapes or of another layout.
    """
    if table is None:
        sizes = operands.check_contiguous_cache(query, key, value, lengths, out)
    else:
        sizes = operands.check_paged_cache(query, key, value, table, lengths, out)
    _launch_checked(
        query, key, value, lengths, out, sizes, config, table, scratch or shared_workspace(query.device), delay
    )


def _launch_checked(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
    sizes: operands.AttentionSizes,
    config: SplitConfig,
    table: torch.Tensor | None,
    scratch: Workspace,
    delay: int = 0,
) -> None:
    group, pairs = sizes.heads // sizes.kv_heads, sizes.batch * sizes.kv_heads
    partials, arrived = scratch.next_buffers(
        *workspace_sizes(config, pairs=pairs, group=group, head_dim=sizes.head_dim)
    )
    page, table_stride = (0, 0) if table is None else (key.shape[1], table.stride(0))
    constants = constexprs(config, group=group, head_dim=sizes.head_dim, page=page, delay=delay)
    options = {"num_warps": config.warps, "num_stages": config.stages, **LAUNCH_OPTIONS}
    strides = (query.stride(0), *key.stride()[:3], table_stride)
    with torch.cuda.device_of(query):  # Triton launches on the current device
        flash_decode[(pairs * config.split,)](
            query, key, value, table, lengths, out, partials, arrived,
            sizes.context, sizes.kv_heads, config.split, *strides, **constants, **options,
        )  # fmt: skip


def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor, out: torch.Tensor) -> None:
    """Run one launch over a contiguous cache, cut by table or rule.

    Calls on a device share a workspace.

    Raises:
        UserError: an unsupported dtype, or operands of mismatched shapes.
    """
    sizes = operands.check_contiguous_cache(query, key, value, lengths, out)
    _launch_checked(
        query, key, value, lengths, out, sizes, _chosen_config(query, sizes, 0), None, shared_workspace(query.device)
    )


def run_paged(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Run one launch over a paged cache, cut by table or rule.

    Calls on a device share a workspace.

    Raises:
        UserError: an unsupported dtype, or operands of mismatched shapes.
    """
    sizes = operands.check_paged_cache(query, key_pages, value_pages, table, lengths, out)
    cut = _chosen_config(query, sizes, key_pages.shape[1])
    _launch_checked(query, key_pages, value_pages, lengths, out, sizes, cut, table, shared_workspace(query.device))


def _chosen_config(query: torch.Tensor, sizes: operands.AttentionSizes, page_size: int) -> SplitConfig:
    dtype, device = dtype_name(query, "triton_decode_attention"), query.device
    return choose_split_config(
        device_arch(device), sm_count(device), dtype, **sizes._asdict(), page_size=page_size
    ).config


def configuration(*, arch: str, dtype: str, page_size: int = 0, **shape: int) -> str:
    """Return the choice in words, for the record.

    It holds on this GPU, else on the representative GPU of `arch`.
    """
    here = current_device()
    sms = sm_count(torch.device(here.kind)) if here.arch == arch else arch_sm_count(arch)
    return str(choose_split_config(arch, sms, dtype, **shape, page_size=page_size))


TRITON_DECODE_ATTENTION = Kernel(
    name="triton_decode_attention",
    op="attention",
    implementation="triton",
    inputs=operands.decode_inputs,
    run=run,
    reference=operands.decode_reference,
    work=operands.decode_work,
    rtol=operands.DECODE_RTOL,
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
