"""Methods of tensors on the simulated device: what C++ answers without the dispatcher, or refuses without CUDA."""

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

from tests.simulated_gpu.hardware import Gpu, Launch

VALUES = {torch.bool: True}
"""Any element read back from the device: true, or 0 of its type. Results are not computed here."""


class Addresses:
    """Device addresses of storages: a view lies within its base, and two storages never overlap."""

    def __init__(self) -> None:
        self._bases: dict[tuple[int, int], int] = {}
        self._end = 0x7F00_0000_0000

    def of(self, tensor: torch.Tensor) -> int:
        """The address of a tensor's first element."""
        storage = tensor.untyped_storage()
        key = (storage._cdata, storage.nbytes())
        if key not in self._bases:
            self._bases[key] = self._end
            self._end += -(-max(storage.nbytes(), 1) // 2**19) * 2**19
        return self._bases[key] + tensor.storage_offset() * tensor.element_size()

    def span(self, tensor: torch.Tensor) -> tuple[int, int]:
        """(address of its first element, bytes of its elements); what a strided view skips is not counted."""
        return self.of(tensor), tensor.numel() * tensor.element_size()


class Generator:
    """A generator on the device: its values are never seen."""

    def manual_seed(self, _seed: int) -> "Generator":
        return self


def install(gpu: Gpu, addresses: Addresses) -> None:
    """Patch torch in this process, for good."""
    reads_wait(gpu)
    views_are_kept()
    device_is_taken()
    copies_launch(gpu, addresses)
    pointer = torch.Tensor.data_ptr

    def data_ptr(self: Any) -> int:
        if not fake(self):
            return pointer(self)
        return addresses.of(self) if self.numel() else 0  # an empty tensor has no address

    torch.Tensor.data_ptr = data_ptr


def fake(one: Any) -> bool:
    """Whether it lies on the simulated device."""
    return isinstance(one, FakeTensor)


def reads_wait(gpu: Gpu) -> None:
    """The host waits for the device wherever it reads an element."""
    tensor, listed = torch.Tensor, torch.Tensor.tolist

    def value_of(read: Any, kind: Any) -> Any:
        def value(self: Any, *args: Any) -> Any:
            if not fake(self):
                return read(self, *args)
            gpu.wait()
            return kind(getattr(self, "known", VALUES.get(self.dtype, 0)))

        return value

    def tolist(self: Any) -> Any:
        if not fake(self):
            return listed(self)
        gpu.wait()
        return self.known if hasattr(self, "known") else _zeros(tuple(self.shape))

    for name, kind in {"__bool__": bool, "__float__": float, "__int__": int, "__index__": int}.items():
        setattr(tensor, name, value_of(getattr(tensor, name), kind))
    tensor.item = value_of(tensor.item, lambda value: value)
    tensor.tolist = tolist


def _zeros(shape: tuple[int, ...]) -> Any:
    return [_zeros(shape[1:]) for _ in range(shape[0])] if shape else 0


def views_are_kept() -> None:
    """Views of a tensor are made once: pools and graphs ask for the same ones again and again."""
    tensor, get, put = torch.Tensor, torch.Tensor.__getitem__, torch.Tensor.__setitem__

    def take(self: Any, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        with unset_fake_temporarily():
            plain = torch.empty_strided(self.shape, self.stride(), dtype=self.dtype, device="meta")
            chosen = get(plain, tuple(_meta(one) for one in parts))
        if any(isinstance(one, torch.Tensor | list) for one in parts):
            return torch.empty(chosen.shape, dtype=self.dtype, device="cuda")
        return torch.as_strided(self, chosen.shape, chosen.stride(), chosen.storage_offset() + self.storage_offset())

    view_once = _remembered(take)

    def getitem(self: Any, index: Any) -> Any:
        if not fake(self):
            return get(self, index)
        parts = index if isinstance(index, tuple) else (index,)
        return take(self, index) if any(map(torch.is_tensor, parts)) else view_once(self, index)

    tensor.__getitem__ = getitem
    tensor.__setitem__ = lambda self, index, value: None if fake(self) else put(self, index, value)
    for name in ("view", "t", "transpose", "unflatten", "chunk", "split"):
        setattr(tensor, name, _remembered(getattr(tensor, name)))


def _remembered(make: Callable[..., Any]) -> Callable[..., Any]:
    def viewed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not fake(self) or self.device.type != "cuda":
            return make(self, *args, **kwargs)
        known = self.__dict__.setdefault("views", {})
        key = (make, repr(args), repr(kwargs))
        if key not in known:
            known[key] = make(self, *args, **kwargs)
        return known[key]

    return viewed


def _meta(index: Any) -> Any:
    """An index tensor without values."""
    if isinstance(index, torch.Tensor):
        return torch.zeros(index.shape, dtype=index.dtype, device="meta")
    return index


def device_is_taken() -> None:
    """`cuda` is a device to move to and to draw on, also in a build of torch without CUDA."""
    tensor, to, listed = torch.Tensor, torch.Tensor.to, torch.Tensor.tolist
    cpu_generator, randn, make = torch.Generator, torch.randn, torch.tensor

    def to_device(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = [one for one in (*args, kwargs.get("device")) if isinstance(one, str | torch.device)]
        if any(str(one).startswith("cuda") for one in asked) and not fake(self):
            dtype = next((one for one in (*args, kwargs.get("dtype")) if isinstance(one, torch.dtype)), self.dtype)
            moved: Any = torch.empty(self.shape, dtype=dtype, device="cuda")
            if not dtype.is_floating_point:
                moved.known = listed(self)  # lengths and page tables, which a reference reads back
            return moved
        return to(self, *args, **kwargs)

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        found = make(data, *args, **kwargs)
        return to_device(found, device) if device is not None else found

    def drawn(*sizes: Any, generator: Any = None, **kwargs: Any) -> Any:
        return randn(*sizes, **(kwargs if isinstance(generator, Generator) else {"generator": generator, **kwargs}))

    tensor.to = to_device
    tensor.cuda = lambda self, *_, **__: to_device(self, "cuda")
    torch.tensor, torch.randn = made, drawn
    torch.Generator = lambda device="cpu": Generator() if str(device).startswith("cuda") else cpu_generator(device)


def copies_launch(gpu: Gpu, addresses: Addresses) -> None:
    """A copy to, from or on the device is a launch; one to the host is waited for."""
    copy = torch.Tensor.copy_

    def copy_into(self: Any, other: Any, *args: Any, **kwargs: Any) -> Any:
        ends = [one for one in (self, other) if fake(one) and one.device.type == "cuda"]
        if not ends:  # on the CPU, or within FakeTensorMode, which copies tensors without data
            return copy(self, other, *args, **kwargs)
        gpu.launch(Launch("copy", tuple(dict.fromkeys(map(addresses.span, ends))), itemsize=other.element_size()))
        if not fake(self):
            gpu.wait()
        return self

    torch.Tensor.copy_ = copy_into
