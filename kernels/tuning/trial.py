"""One try of a configuration on the GPU at hand: correct first, then the cold mean of a call in a graph."""

from functools import partial
from math import inf, nan
from statistics import fmean
from typing import Any

import torch

from kernels.kernel import Inputs
from kernels.timing.cuda import CudaTimer
from kernels.timing.device import Device
from kernels.timing.pool import Pool
from kernels.triton_utils import CompilationError, OutOfResources
from kernels.tuning.subject import Subject
from kernels.workspace import Workspace
from specs.errors import UserError

LASTING = (CompilationError, OutOfResources, UserError)
"""What would be raised the next time too."""


class LostError(Exception):
    """A configuration took the GPU down: this process can use it no more."""


class Bench:
    """Tries configurations for one shape after another.

    Args:
        device: the GPU.
        dtype: of the operands.
        largest_bytes: of the most that a call will stream.

    Attributes:
        problem: why the last try gave no time; empty where it gave one.
        lasting: whether it would give none the next time too: memory that is short, or a clock that is disturbed,
            passes.
    """

    def __init__(self, device: Device, dtype: str, largest_bytes: int) -> None:
        self._device = device
        self._pool = Pool(device, {dtype: largest_bytes})
        self.problem, self.lasting = "", True

    def seconds(self, shape: Subject, config: Any) -> float:
        """Cold mean of a call; inf where the configuration is wrong or does not run, with `problem` saying why.

        Raises:
            LostError: the GPU is lost to this process.
        """
        self.problem, self.lasting = "", True
        try:
            with torch.inference_mode():
                return self._measured(shape, config)
        except Exception as error:  # whatever a compiler or a launch raises is that configuration's
            said = str(error).strip().splitlines() or ["no message"]
            self.problem, self.lasting = f"{type(error).__name__}: {said[0]}", isinstance(error, LASTING)
        if lost := self._device.lost():
            self.problem, self.lasting = f"{lost} after {config}", True
            raise LostError(self.problem)
        return inf

    def _inputs(self, shape: Subject) -> list[Inputs]:
        self._pool.forget()
        return [shape.inputs(self._pool) for _ in range(self._device.cold_copies(shape.streamed_bytes))]

    def _measured(self, shape: Subject, config: Any) -> float:
        if refused := shape.refused(config, self._device.arch):
            self.problem = refused
            return inf
        inputs = self._inputs(shape)
        first, kernel = inputs[0], shape.kernel
        scratch = Workspace(first["out"].device)  # its own: what a faulty configuration leaves there ends with it
        scratch.turn(*shape.room(config))
        scratch.partials.fill_(nan)
        shape.launch(config, scratch, **first)
        error = kernel.relative_error(first)
        if not error <= kernel.rtol[shape.dtype]:
            self.problem = f"wrong result: relative error {error:.3g}"
            return inf
        timer = CudaTimer(self._device, "graph")
        timer.warm_up([partial(shape.launch, config, scratch, **one) for one in inputs], None)
        return fmean(timer.sample(1.0).seconds)
