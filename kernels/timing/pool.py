"""Memory of a case's tensors: one buffer larger than the caches, read by windows.

Decode streams every layer's weights, so a weight that was just read must not be in a cache when it is read again. All
cases of a dtype share one buffer of random values, at least `COLD_FACTOR` times the last-level cache. Each weight is
the next window of the buffer, so successive calls read different addresses.
"""

from collections.abc import Callable
from math import prod

import torch

from kernels.kernel import TORCH_DTYPES
from kernels.timing.device import Device

ALIGNMENT = 256
"""Alignment of windows in bytes, as from allocators and for 16-byte loads."""
_BLOCK_ELEMENTS = 2**22
"""Elements of fresh random values.

Longer buffers repeat them at other addresses, which caches cannot tell.
"""

Fill = Callable[[torch.Tensor], object]


class TensorPool:
    """A `kernels.kernel.TensorSource` over shared buffers on one device.

    Args:
        device: device of the buffers.
        window_bytes: largest weight that will be drawn, by dtype.
    """

    def __init__(self, device: Device, window_bytes: dict[str, int]) -> None:
        self._device = device
        # Room for one window beyond cold_bytes, so that the last copy of any size does not overlap the first.
        self._bytes = {
            dtype: size if size >= device.cold_bytes else device.cold_bytes + size
            for dtype, size in window_bytes.items()
        }
        self._buffers: dict[str, torch.Tensor] = {}
        self._start: dict[str, int] = {}
        self._kept: dict[tuple[object, ...], torch.Tensor] = {}
        self._blocks: dict[torch.dtype, torch.Tensor] = {}
        torch.seed()  # torch seeds all processes alike, and a check must not see the same values again

    def reset(self) -> None:
        """Drop the previous case's activations and outputs, and start the buffer again."""
        self._kept.clear()
        self._start.clear()

    def weight(self, *shape: int, dtype: str) -> torch.Tensor:
        """Return the next window of the buffer; start again where the end is too near."""
        buffer, count = self._buffer(dtype), prod(shape)
        start = self._start.get(dtype, 0)
        if start + count > buffer.numel():
            start = 0
        step = ALIGNMENT // buffer.element_size()
        self._start[dtype] = start + -(-count // step) * step
        return buffer[start : start + count].view(shape)

    def activation(self, *shape: int, dtype: str, name: str = "") -> torch.Tensor:
        """Return one tensor for all calls of a case, as the previous op writes it."""
        return self._cached_tensor(f"activation {name}", shape, dtype, self._fill_random)

    def output(self, *shape: int, dtype: str, name: str = "") -> torch.Tensor:
        """Return one tensor for all calls of a case, poisoned with NaN."""
        return self._cached_tensor(f"output {name}", shape, dtype, lambda tensor: tensor.fill_(float("nan")))

    def integers(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values on the device, anew for each call.

        They belong to the call's weights.
        """
        return values.to(self._device.kind)

    def _cached_tensor(self, role: str, shape: tuple[int, ...], dtype: str, fill: Fill) -> torch.Tensor:
        key = (role, shape, dtype)
        if key not in self._kept:
            self._kept[key] = torch.empty(shape, dtype=TORCH_DTYPES[dtype], device=self._device.kind)
            fill(self._kept[key])
        return self._kept[key]

    def _fill_random(self, tensor: torch.Tensor) -> None:
        """Repeat a block of random values that no weight shares.

        Drawing all values anew would cost more than timing.
        """
        if tensor.dtype not in self._blocks:
            self._blocks[tensor.dtype] = torch.empty(
                _BLOCK_ELEMENTS, dtype=tensor.dtype, device=tensor.device
            ).normal_()
        _repeat_block(tensor.view(-1), self._blocks[tensor.dtype])

    def _buffer(self, dtype: str) -> torch.Tensor:
        if dtype not in self._buffers:
            count = self._bytes[dtype] // torch.empty((), dtype=TORCH_DTYPES[dtype]).element_size()
            buffer = torch.empty(count, dtype=TORCH_DTYPES[dtype], device=self._device.kind)
            _repeat_block(buffer[_BLOCK_ELEMENTS:], buffer[:_BLOCK_ELEMENTS].normal_())
            self._buffers[dtype] = buffer
        return self._buffers[dtype]


def _repeat_block(tensor: torch.Tensor, block: torch.Tensor) -> None:
    """Repeat `block` over a flat tensor."""
    for part in tensor.split(_BLOCK_ELEMENTS):
        part.copy_(block[: part.numel()])


class ByteCounter:
    """A `TensorSource` that allocates nothing and adds up the bytes of a call."""

    def __init__(self) -> None:
        self.weight_bytes = 0
        self.other_bytes = 0

    def weight(self, *shape: int, dtype: str) -> torch.Tensor:
        """Count a streamed tensor."""
        tensor = torch.empty(shape, dtype=TORCH_DTYPES[dtype], device="meta")
        self.weight_bytes += tensor.nbytes
        return tensor

    def activation(self, *shape: int, dtype: str, name: str = "") -> torch.Tensor:  # noqa: ARG002 - each counts
        """Count a tensor that all calls share."""
        tensor = torch.empty(shape, dtype=TORCH_DTYPES[dtype], device="meta")
        self.other_bytes += tensor.nbytes
        return tensor

    output = activation

    def integers(self, values: torch.Tensor) -> torch.Tensor:
        """Count the values with those that all calls share."""
        self.other_bytes += values.nbytes
        return values.to("meta")
