"""What a program does while others run: bring its data nearer, or, in tests, wait at random."""

from kernels.triton_utils import tl, triton


@triton.jit
def lines(row: tl.tensor, begin: int, n: int, k: int, STEP: tl.constexpr, LINES: tl.constexpr) -> tl.tensor:
    """Elements of a matrix [n, k] where LINES lines of STEP elements begin in each row, at its end at the latest."""
    column = tl.minimum(begin + tl.arange(0, LINES) * STEP, k - 1)
    return tl.minimum(row, n - 1).to(tl.int64)[:, None] * k + column[None, :]


@triton.jit
def prefetch(weight: tl.tensor, row: tl.tensor, begin: int, n: int, k: int, BYTES: tl.constexpr) -> None:
    """Bring the first BYTES of each row of weight[n, k] from column `begin` on into L2, line by line."""
    PER_LINE: tl.constexpr = 1024 // weight.dtype.element_ty.primitive_bitwidth
    where = weight + lines(row, begin, n, k, PER_LINE, BYTES // 128)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [where], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def stall(limit: tl.constexpr) -> None:
    """Wait for up to `limit` nanoseconds, at random: so that a test meets programs in every order."""
    start = tl.extra.cuda.globaltimer()
    wait = ((start & 0xFFFFF) + tl.program_id(0) * 8191) * 40503 % limit
    while tl.extra.cuda.globaltimer() - start < wait:
        pass
