"""What the search has to know of a shape, whichever kernel serves it."""

from typing import Any, Protocol

from kernels.kernel import Draw, Inputs, Kernel
from kernels.workspace import Workspace


class Subject(Protocol):
    """A NamedTuple of a dtype and sizes, for which a configuration is searched.

    Attributes:
        kernel: whose inputs, reference and tolerance hold.
        streamed_bytes: weights or caches that one call reads.
    """

    @property
    def dtype(self) -> str:
        """Of the operands."""

    @property
    def kernel(self) -> Kernel:
        """See above."""

    @property
    def streamed_bytes(self) -> int:
        """See above."""

    def inputs(self, draw: Draw) -> Inputs:
        """The tensors of one call."""

    def refused(self, config: Any, arch: str) -> str:
        """Why the compiler rules a configuration out before it is tried; empty where it does not."""

    def room(self, config: Any) -> tuple[int, int]:
        """Fp32 partial results and counters that one call takes of its workspace."""

    def launch(self, config: Any, scratch: Workspace, **inputs: Any) -> None:
        """Run a configuration on tensors from `inputs`."""

    def _asdict(self) -> dict[str, Any]: ...
