"""One try of a configuration on the GPU at hand: correct first, then the cold mean of a call in a graph."""

from functools import partial
from math import inf, nan
from statistics import fmean
from typing import Any

import torch
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources

from kernels import gemm, skinny
from kernels.linear import TORCH_LINEAR
from kernels.timing.cuda import CudaTimer
from kernels.timing.device import Device
from kernels.timing.pool import Pool
from kernels.tuning.config import FEW_TOKENS, Config
from kernels.workspace import Workspace
from specs.dtypes import ITEMSIZE
from specs.errors import UserError

LASTING = (CompilationError, OutOfResources, UserError)
"""What would be raised the next time too."""


class LostError(Exception):
    """A configuration took the GPU down: this process can use it no more."""


def launch(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, config: Config, scratch: Workspace) -> None:
    """Run a configuration of the kernel that serves so many tokens."""
    kernel = skinny if x.shape[0] <= FEW_TOKENS else gemm
    kernel.launch(x, weight, out, config, scratch=scratch)


class Bench:
    """Tries configurations for one shape after another.

    Args:
        device: the GPU.
        dtype: of the operands.
        largest_bytes: of the largest weight that will be asked for.

    Attributes:
        problem: why the last try gave no time; empty where it gave one.
        lasting: whether it would give none the next time too: memory that is short, or a clock that is disturbed,
            passes.
    """

    def __init__(self, device: Device, dtype: str, largest_bytes: int) -> None:
        self._device, self._dtype = device, dtype
        self._pool = Pool(device, {dtype: largest_bytes})
        self.problem, self.lasting = "", True

    def seconds(self, config: Config, *, tokens: int, n: int, k: int) -> float:
        """Cold mean of a call; inf where the configuration is wrong or does not run, with `problem` saying why.

        Raises:
            LostError: the GPU is lost to this process.
        """
        self.problem, self.lasting = "", True
        try:
            with torch.inference_mode():
                return self._measured(config, self._inputs(tokens, n, k))
        except Exception as error:  # whatever a compiler or a launch raises is that configuration's
            said = str(error).strip().splitlines() or ["no message"]
            self.problem, self.lasting = f"{type(error).__name__}: {said[0]}", isinstance(error, LASTING)
        if lost := self._device.lost():
            self.problem, self.lasting = f"{lost} after {config}", True
            raise LostError(self.problem)
        return inf

    def _inputs(self, tokens: int, n: int, k: int) -> list[dict[str, Any]]:
        copies = self._device.cold_copies(n * k * ITEMSIZE[self._dtype])
        self._pool.forget()
        return [TORCH_LINEAR.inputs(self._pool, tokens=tokens, n=n, k=k, dtype=self._dtype) for _ in range(copies)]

    def _measured(self, config: Config, inputs: list[dict[str, Any]]) -> float:
        first = inputs[0]
        tokens, n = first["out"].shape
        scratch = Workspace(first["x"].device)  # its own: what a faulty configuration leaves there ends with it
        scratch.turn(config.partial_elements(n, tokens), config.programs(n, tokens))
        scratch.partials.fill_(nan)
        launch(**first, config=config, scratch=scratch)
        error = TORCH_LINEAR.relative_error(first)
        if not error <= TORCH_LINEAR.rtol[self._dtype]:
            self.problem = f"wrong result: relative error {error:.3g}"
            return inf
        timer = CudaTimer(self._device, "graph")
        timer.warm_up([partial(launch, **one, config=config, scratch=scratch) for one in inputs], None)
        return fmean(timer.sample(1.0).seconds)
