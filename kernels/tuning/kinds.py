"""Which space of configurations and which model a count of tokens has: the skinny linear's or the GEMM's."""

from collections.abc import Callable
from typing import NamedTuple

from kernels.tuning import gemm_model, gemm_space, model, space
from kernels.tuning.config import FEW_TOKENS, Config
from kernels.tuning.model import Prediction


class Kind(NamedTuple):
    """What the search knows of one kernel.

    Attributes:
        candidates: `candidates(on, dtype, tokens=…, n=…, k=…)` gives what is worth a try.
        predict: `predict(config, gpu, ctas, dtype, tokens=…, n=…, k=…)` says how long it should take.
        resident: `resident(on, config, dtype, registers=…, shared=…)` says how many programs an SM holds.
    """

    candidates: Callable[..., list[Config]]
    predict: Callable[..., Prediction]
    resident: Callable[..., int]


SKINNY = Kind(space.candidates, model.predict, model.resident)
GEMM = Kind(gemm_space.candidates, gemm_model.predict, gemm_model.resident)


def kind(tokens: int) -> Kind:
    """That of the kernel which serves so many tokens."""
    return SKINNY if tokens <= FEW_TOKENS else GEMM
