"""A linear as the search sees it: up to 64 tokens the skinny linear, beyond it the GEMM."""

from typing import Any, NamedTuple

from kernels import gemm, skinny
from kernels.kernel import Draw, Inputs, Kernel
from kernels.linear import TORCH_LINEAR
from kernels.tuning.config import FEW_TOKENS, Config
from kernels.workspace import Workspace
from specs.units import ITEMSIZE


class LinearShape(NamedTuple):
    """Of y[tokens, n] = x[tokens, k] · W[n, k]ᵀ."""

    dtype: str
    tokens: int
    n: int
    k: int

    @property
    def kernel(self) -> Kernel:
        """The baseline, whose inputs and reference are those of every linear."""
        return TORCH_LINEAR

    @property
    def streamed_bytes(self) -> int:
        """W."""
        return self.n * self.k * ITEMSIZE[self.dtype]

    def inputs(self, draw: Draw) -> Inputs:
        """x[tokens, k], weight[n, k] and out[tokens, n]."""
        return TORCH_LINEAR.inputs(draw, **self._asdict())

    def refused(self, config: Config, arch: str) -> str:  # noqa: ARG002 - of any configuration on any architecture
        """Nothing: there are so many that to compile each once more would cost half of the tries."""
        return ""

    def room(self, config: Config) -> tuple[int, int]:
        """Partial sums, and a counter for each part of a tile."""
        return config.partial_elements(self.n, self.tokens), config.programs(self.n, self.tokens)

    def launch(self, config: Config, scratch: Workspace, **inputs: Any) -> None:
        """Run a configuration of the kernel that serves so many tokens."""
        kernel = skinny if self.tokens <= FEW_TOKENS else gemm
        kernel.launch(**inputs, config=config, scratch=scratch)
