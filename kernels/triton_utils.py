"""Triton or stand-ins for it, and device functions that several kernels share.

Kernel files take `triton`, `tl` and the rest of Triton from here. Without Triton each name is an `Absent`, so all other
kernels still work. Decorators, annotations and constants of a kernel file can be evaluated, and the first launch or
compilation is refused.
"""

import os
import shutil
from typing import Any

from specs.errors import UserError

_import_problem = ""

try:
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError as error:
    _import_problem = f"{type(error).__name__}: {error}".split("\n")[0]

    class Absent:
        """Stand-in for any name of Triton.

        It has every attribute and decorates functions, but cannot be launched.
        """

        def __getattr__(self, name: str) -> "Absent":
            if name.startswith("__"):
                raise AttributeError(name)
            return self

        def __call__(self, *_: Any, **__: Any) -> "Absent":
            return self

        def __getitem__(self, _: Any) -> Any:
            raise UserError(str(missing_triton()))

    class NeverRaisedError(Exception):
        """Stand-in for an exception of Triton."""

    class HostFunctions(Absent):
        """Stand-in for the module; these two host functions are real."""

        @staticmethod
        def cdiv(x: int, y: int) -> int:
            """Return x / y, rounded up."""
            return -(-x // y)

        @staticmethod
        def next_power_of_2(n: int) -> int:
            """Return the least power of two that is not less than n."""
            return 1 << (n - 1).bit_length()

    triton = HostFunctions()
    tl = GPUTarget = ASTSource = TensorDescriptor = Absent()
    CompilationError = OutOfResources = NeverRaisedError

__all__ = [
    "ASTSource",
    "CompilationError",
    "GPUTarget",
    "OutOfResources",
    "TensorDescriptor",
    "missing_triton",
    "missing_triton_launch",
    "tl",
    "triton",
]


def missing_triton() -> str | None:
    """Return one line on how to get Triton; None where it can be imported."""
    if not _import_problem:
        return None
    return f"Triton is not here; it has wheels for Linux: pip install -c constraints.txt triton ({_import_problem})"


def missing_triton_launch() -> str | None:
    """Return one line on what a launch of a Triton kernel lacks; None without a lack.

    Compilation for a GPU that is not here needs less.
    """
    if reason := missing_triton():
        return reason
    if os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"):
        return None
    return "Triton builds its launcher with a C compiler, and there is none: apt-get install gcc, or set CC"


# The SwiGLU epilogue of a linear: silu(gate) · up from rows of W with gate and up in turn.
#
# Row 2i of W is the gate of feature i and row 2i + 1 its up projection. An engine arranges the rows once, when it loads
# the weights. Both halves of a feature are thus in the tile of one program, which stores half as much.


@triton.jit
def gated(total: tl.tensor, ROWS: tl.constexpr, TOKENS: tl.constexpr) -> tl.tensor:
    """[ROWS, TOKENS] of alternating gates and ups to [ROWS / 2, TOKENS], in fp32."""
    gate, up = tl.split(tl.permute(tl.reshape(total, [ROWS // 2, 2, TOKENS]), (0, 2, 1)))
    return gate * tl.sigmoid(gate) * up


# Concurrency: prefetch data into L2, or, in tests, wait at random.


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
