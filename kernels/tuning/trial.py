"""One try of a configuration on the GPU at hand: correct first, then the cold mean of a call in a graph."""

from functools import partial
from math import inf, nan
from statistics import fmean
from typing import Any

import torch

from kernels.skinny import TRITON_SKINNY, launch
from kernels.timing.cuda import CudaTimer
from kernels.timing.device import Device
from kernels.timing.pool import Pool, Ruler
from kernels.tuning.config import Config
from kernels.workspace import workspace


class Bench:
    """Tries configurations for one shape after another.

    Args:
        device: the GPU.
        dtype: of the operands.
        largest_bytes: of the largest weight that will be asked for.
    """

    def __init__(self, device: Device, dtype: str, largest_bytes: int) -> None:
        self._device, self._dtype = device, dtype
        self._pool = Pool(device, {dtype: largest_bytes})
        self.problem = ""
        """Why the last try gave no time; empty where it gave one."""

    def seconds(self, config: Config, *, tokens: int, n: int, k: int) -> float:
        """Cold mean of a call; inf where the configuration is wrong or does not run, with `problem` saying why.

        Raises:
            RuntimeError: the GPU is lost to this process.
        """
        self.problem = ""
        try:
            with torch.inference_mode():
                return self._measured(config, self._inputs(tokens, n, k))
        except Exception as error:  # whatever a compiler or a launch raises is that configuration's
            self.problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        if lost := self._device.lost():
            raise RuntimeError(f"{lost} after {config}")
        return inf

    def _inputs(self, tokens: int, n: int, k: int) -> list[dict[str, Any]]:
        ruler = Ruler()
        TRITON_SKINNY.inputs(ruler, tokens=tokens, n=n, k=k, dtype=self._dtype)
        copies = self._device.cold_copies(ruler.weight_bytes)
        self._pool.forget()
        return [TRITON_SKINNY.inputs(self._pool, tokens=tokens, n=n, k=k, dtype=self._dtype) for _ in range(copies)]

    def _measured(self, config: Config, inputs: list[dict[str, Any]]) -> float:
        first = inputs[0]
        workspace(first["x"].device).partials.fill_(nan)
        launch(**first, config=config)
        error = TRITON_SKINNY.relative_error(first)
        if not error <= TRITON_SKINNY.rtol[self._dtype]:
            self.problem = f"wrong result: relative error {error:.3g}"
            return inf
        timer = CudaTimer(self._device, "graph")
        timer.warm_up([partial(launch, **one, config=config) for one in inputs], None)
        return fmean(timer.sample(1.0).seconds)
