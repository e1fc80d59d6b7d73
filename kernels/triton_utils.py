"""Triton where it is installed, and stand-ins where it is not, so that all other kernels work without it.

Kernel files take `triton`, `tl` and the rest of Triton from here. Without it each name is an `Absent`: decorators,
annotations and constants of a kernel file can be evaluated, and the first launch or compilation is refused.
"""

import os
import shutil
from typing import Any

from specs.errors import UserError

_problem = ""

try:
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError as error:
    _problem = f"{type(error).__name__}: {error}".split("\n")[0]

    class Absent:
        """Stands for any name of Triton: it has every attribute and decorates, but it cannot be launched."""

        def __getattr__(self, name: str) -> "Absent":
            if name.startswith("__"):
                raise AttributeError(name)
            return self

        def __call__(self, *_: Any, **__: Any) -> "Absent":
            return self

        def __getitem__(self, _: Any) -> Any:
            raise UserError(str(missing_triton()))

    class NeverRaisedError(Exception):
        """Stands for an exception of Triton."""

    class HostFunctions(Absent):
        """Stands for the module: sizes are worked out on the host, so these two functions are real."""

        @staticmethod
        def cdiv(x: int, y: int) -> int:
            """X / y, rounded up."""
            return -(-x // y)

        @staticmethod
        def next_power_of_2(n: int) -> int:
            """The least power of two that is no less than n."""
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
    """One line where Triton cannot be imported: how to get it."""
    if not _problem:
        return None
    return f"Triton is not here; it has wheels for Linux: pip install -c constraints.txt triton ({_problem})"


def missing_triton_launch() -> str | None:
    """One line on what a launch of a Triton kernel lacks; to compile for a GPU that is not here takes less."""
    if reason := missing_triton():
        return reason
    if os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"):
        return None
    return "Triton builds its launcher with a C compiler, and there is none: apt-get install gcc, or set CC"
