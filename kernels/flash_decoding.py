"""The device code of decode attention: one kv head of one sequence, all of its tokens or a part of them.

Query heads fill the rows of the matrix instruction, padded to 16: that of a warp on every architecture, for those with
64 rows and more would be padding alone, and memory is what the time is spent on. The softmax goes along in fp32: a
running maximum, exp2, and sums that each thread keeps for itself until the end.

A part leaves, for each query head, its largest score, the sum of 2^(score − largest), and the sum of the values
weighted so; two such results are added up by bringing both to the larger maximum. A slot of fp32 holds [rows, head_dim]
weighted values, then [rows] maxima, then [rows] sums, of which padded rows stay unwritten.
"""

from kernels.overlap import stall
from kernels.triton_utils import tl, triton

LEAST = tl.constexpr(-3.0e38)
"""Below every score and finite, so that its distance to itself is 0: no NaN where a part has no tokens."""


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
