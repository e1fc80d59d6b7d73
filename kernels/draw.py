"""Fresh random tensors for a correctness check."""

import torch

from kernels.kernel import DTYPES


class FreshDraw:
    """Draws every tensor anew from a seeded generator: what tests use, and what `kernels.kernel.Draw` asks for."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._device = device

    def _normal(self, *shape: int, dtype: str, name: str = "") -> torch.Tensor:  # noqa: ARG002 - each is another
        return torch.randn(*shape, generator=self._generator, device=self._device).to(DTYPES[dtype])

    weight = _normal
    activation = _normal

    def output(self, *shape: int, dtype: str, name: str = "") -> torch.Tensor:  # noqa: ARG002 - likewise
        """NaN everywhere, so that an unwritten element shows."""
        return torch.full(shape, float("nan"), dtype=DTYPES[dtype], device=self._device)

    def integers(self, values: torch.Tensor) -> torch.Tensor:
        """On the device."""
        return values.to(self._device)
