"""The rule that serves what no table covers: of the configurations that fit, the one with the fastest prediction.

The static model predicts. What lies within two percent of the best is a tie, which goes to pointers before descriptors,
to fewer parts of k, to fewer stages and to larger tiles, in this order: each costs something that the model does not
see. Then comes the best of what is left with its ties, and so on.
"""

from collections.abc import Iterable

from kernels.tuning.config import Config
from kernels.tuning.kinds import kind
from kernels.tuning.model import Prediction
from specs.gpus import Arch

TIE = 0.02


def rank(configs: Iterable[tuple[Config, Prediction]]) -> list[tuple[Config, Prediction]]:
    """From the fastest prediction to the slowest, ties in the order above; what does not fit is left out."""

    def seconds(pair: tuple[Config, Prediction]) -> float:
        return pair[1].seconds or 0.0

    def preference(pair: tuple[Config, Prediction]) -> tuple[int, ...]:
        config = pair[0]
        return config.tma, config.split, config.stages, -config.rows, config.warps, -config.depth

    left = sorted((pair for pair in configs if pair[1].seconds is not None), key=seconds)
    order: list[tuple[Config, Prediction]] = []
    while left:
        bound = (1 + TIE) * seconds(left[0])
        tied = [pair for pair in left if seconds(pair) <= bound]
        order += sorted(tied, key=preference)
        left = left[len(tied) :]
    return order


def ranked(on: Arch, dtype: str, *, tokens: int, n: int, k: int) -> list[tuple[Config, Prediction]]:
    """All candidates for a shape with what is predicted on the architecture's representative GPU, best first."""
    shape, known = {"tokens": tokens, "n": n, "k": k}, kind(tokens)
    return rank(
        (config, known.predict(config, on.representative, known.resident(on, config, dtype), dtype, **shape))
        for config in known.candidates(on, dtype, **shape)
    )


def rule(on: Arch, dtype: str, *, tokens: int, n: int, k: int) -> Config:
    """The configuration for y[tokens, n] = x[tokens, k] · W[n, k]ᵀ on `on`."""
    return ranked(on, dtype, tokens=tokens, n=n, k=k)[0][0]
