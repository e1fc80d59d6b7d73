"""What a program of the GEMM does with one tile: finds its place, multiplies, and stores it piece by piece."""

from kernels.gated import gated
from kernels.triton_utils import tl, triton


@triton.jit
def place(tile: int, row_blocks: int, token_blocks: int, GROUP: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Row block and token block of a tile: all tokens of GROUP row blocks before the next rows."""
    group, within = tile // (GROUP * token_blocks), tile % (GROUP * token_blocks)
    height = tl.minimum(row_blocks - group * GROUP, GROUP)
    return group * GROUP + within % height, within // height


@triton.jit
def product(
    x: tl.tensor,
    weight: tl.tensor,
    x_tiles: tl.tensor_descriptor,
    weight_tiles: tl.tensor_descriptor,
    first_token: int,
    first_row: int,
    begin: int,
    end: int,
    tokens: int,
    n: int,
    k: int,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    DEPTH: tl.constexpr,
    STAGES: tl.constexpr,
    EVEN: tl.constexpr,
) -> tl.tensor:
    """x[TOKENS, k] · W[ROWS, k]ᵀ over k from `begin` to `end`, in fp32; through descriptors where there are any."""
    # Beyond the edge the last token and row stand in: no mask, and what they give is not stored.
    token = tl.minimum(first_token + tl.arange(0, TOKENS), tokens - 1).to(tl.int64)  # int64: tokens * k passes 2^31
    row = tl.minimum(first_row + tl.arange(0, ROWS), n - 1).to(tl.int64)
    column = tl.arange(0, DEPTH)
    x_row, weight_row = x + token[:, None] * k, weight + row[:, None] * k
    total = tl.zeros([TOKENS, ROWS], tl.float32)
    for start in tl.range(begin, end, DEPTH, num_stages=STAGES):
        if weight_tiles is not None:
            values = x_tiles.load([first_token, start])  # zeros beyond the edges
            weights = weight_tiles.load([first_row, start])
        elif EVEN:
            values = tl.load(x_row + (start + column)[None, :])
            weights = tl.load(weight_row + (start + column)[None, :])
        else:
            given = (start + column < k)[None, :]
            values = tl.load(x_row + (start + column)[None, :], mask=given, other=0.0)
            weights = tl.load(weight_row + (start + column)[None, :], mask=given, other=0.0)
        total = tl.dot(values, tl.trans(weights), total, input_precision="ieee")  # else fp32 is rounded to tf32: 5e-4
    return total


@triton.jit
def store(
    total: tl.tensor,
    out: tl.tensor,
    out_tiles: tl.tensor_descriptor,
    first_token: int,
    first_row: int,
    tokens: int,
    n: int,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    PIECE: tl.constexpr,
    SWIGLU: tl.constexpr,
) -> None:
    """Write a tile to out[tokens, n], its SwiGLU to out[tokens, n / 2]; halved until it is PIECE columns wide."""
    if ROWS > PIECE:
        left, right = tl.split(tl.permute(tl.reshape(total, [TOKENS, 2, ROWS // 2]), (0, 2, 1)))
        store(left, out, out_tiles, first_token, first_row, tokens, n, ROWS // 2, TOKENS, PIECE, SWIGLU)
        store(right, out, out_tiles, first_token, first_row + ROWS // 2, tokens, n, ROWS // 2, TOKENS, PIECE, SWIGLU)
    else:
        PARTS: tl.constexpr = 2 if SWIGLU else 1
        if SWIGLU:
            total = tl.trans(gated(tl.trans(total), ROWS, TOKENS))
        result = total.to(out.dtype.element_ty)
        if out_tiles is not None:
            out_tiles.store([first_token, first_row // PARTS], result)  # nothing beyond the edges
        else:
            token, column = first_token + tl.arange(0, TOKENS), first_row // PARTS + tl.arange(0, ROWS // PARTS)
            inside = (token < tokens)[:, None] & (column < n // PARTS)[None, :]
            tl.store(out + token.to(tl.int64)[:, None] * (n // PARTS) + column[None, :], result, mask=inside)
