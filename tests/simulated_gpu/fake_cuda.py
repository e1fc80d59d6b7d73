"""torch on the simulated device: `cuda` tensors are FakeTensors, an op on them is a launch, CPU tensors stay real."""

import contextlib
import os
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from tests.simulated_gpu.hardware import Gpu, Graph, Launch
from tests.specs.planted_ncu import kernel, table

NCU_TABLE = "SHARDBENCH_SIMULATED_NCU"
"""Variable that names the file into which ncu's table goes."""

MATMULS = ("mm", "addmm", "bmm", "baddbmm", "linear")
FREE = (
    "empty",
    "empty_strided",
    "empty_like",
    "new_empty",
    "new_empty_strided",
    "detach",
    "alias",
    "set_",
    "record_stream",
)
"""Ops that launch nothing, besides views."""
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


class Ops(TorchDispatchMode):
    """Sends ops on `cuda` to FakeTensorMode and accounts for them; runs all others as if nothing were faked."""

    def __init__(self, gpu: Gpu, addresses: Addresses, most_bytes: int) -> None:
        super().__init__()
        self._gpu, self._addresses, self._most = gpu, addresses, most_bytes

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        fakes = [one for one in tensors_in((*args, *kwargs.values())) if isinstance(one, FakeTensor)]
        if not fakes and not _asks_for_cuda(kwargs):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if name == "equal":
            self._gpu.wait()
            return True
        if isinstance(kwargs.get("out"), FakeTensor) or (name.endswith("_") and name not in FREE):
            out = kwargs.get("out", args[0])  # it is there already, and nothing is computed
        else:
            out = func(*args, **kwargs)
        made = [one for one in tensors_in((out,)) if isinstance(one, FakeTensor)]
        self._refuse_too_large(made)
        if any(one.device.type == "cpu" for one in made):  # a copy back to the host
            self._gpu.wait()
        elif name not in FREE and not func.is_view and "view" not in name and made:
            self._gpu.launch(self._launch(name, fakes, made))
        return out

    def _launch(self, name: str, operands: list[Any], made: list[Any]) -> Launch:
        on_gpu = {id(one): one for one in (*operands, *made) if one.device.type == "cuda"}
        touched = dict.fromkeys(self._addresses.span(one) for one in on_gpu.values())
        flops = matmul_flops(name, operands) if name in MATMULS else 0.0
        return Launch(name, tuple(touched), flops, max((one.element_size() for one in operands), default=4))

    def _refuse_too_large(self, made: list[Any]) -> None:
        for one in made:
            if one.device.type == "cuda" and one.untyped_storage().nbytes() > self._most:
                wanted = one.untyped_storage().nbytes() / 2**30
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {wanted:.2f} GiB")


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """Tensors among arguments or results, and in lists of them."""
    for one in values:
        if isinstance(one, torch.Tensor):
            yield one
        elif isinstance(one, list | tuple):
            yield from tensors_in(one)


def _asks_for_cuda(kwargs: dict[str, Any]) -> bool:
    return str(kwargs.get("device", "")).startswith("cuda")


def matmul_flops(name: str, operands: list[Any]) -> float:
    """2 x m x n x k of a[…, m, k] times b[…, k, n], which stand behind the summand of addmm and baddbmm."""
    left, right = operands[1:3] if name.startswith(("add", "badd")) else operands[:2]
    columns = right.shape[0] if name == "linear" else right.shape[-1]
    return 2.0 * left.numel() * columns


def event_class(gpu: Gpu) -> type:
    """torch.cuda.Event on `gpu`."""

    class Event:
        def __init__(self, enable_timing: bool = False, **_: Any) -> None:
            self.at: float | None = None

        def record(self, _stream: Any = None) -> None:
            if gpu.capturing is None:
                self.at = gpu.record()

        def query(self) -> bool:
            gpu.check()
            return self.at is None or self.at <= gpu.host

        def synchronize(self) -> None:
            gpu.wait(self.at)

        def wait(self, _stream: Any = None) -> None:
            pass

        def elapsed_time(self, other: "Event") -> float:
            assert self.at is not None, "an event that was never recorded"
            assert other.at is not None, "an event that was never recorded"
            return 1000 * gpu.elapsed(self.at, other.at)

    return Event


def stream_class(gpu: Gpu, event: type) -> type:
    """torch.cuda.Stream: there is one, and all that is asked of it happens in order."""

    class Stream:
        cuda_stream, device_index, device = 7, 0, torch.device("cuda", 0)

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def wait_stream(self, _other: Any) -> None:
            pass

        def wait_event(self, _event: Any) -> None:
            pass

        def synchronize(self) -> None:
            gpu.wait()

        def record_event(self, one: Any = None) -> Any:
            one = one or event()
            one.record()
            return one

        def __enter__(self) -> "Stream":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    return Stream


def graph_classes(gpu: Gpu) -> tuple[type, Any]:
    """torch.cuda.CUDAGraph and the context manager torch.cuda.graph."""

    class CUDAGraph:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.graph = Graph()

        def replay(self) -> None:
            gpu.replay(self.graph)

        def pool(self) -> tuple[int, int]:
            return (0, 0)

        def reset(self) -> None:
            self.graph = Graph()

    @contextlib.contextmanager
    def graph(into: CUDAGraph, *_: Any, **__: Any) -> Iterator[None]:
        gpu.wait()
        gpu.capturing = into.graph
        try:
            yield
        finally:
            gpu.capturing = None

    return CUDAGraph, graph


def profiler(gpu: Gpu) -> tuple[Callable[[], None], Callable[[], None]]:
    """Start and stop of the profiler: what runs between them stands in ncu's table, where the process runs under it."""
    rows: list[str] = []

    def start() -> None:
        gpu.profiled = []

    def stop() -> None:
        for launch, missed, seconds in gpu.profiled or []:
            rows.append(
                kernel(len(rows), launch.name, f"({launch.programs}, 1, 1)", f"{missed:.0f}", f"{1e9 * seconds:.0f}")
            )
        gpu.profiled = None
        if path := os.environ.get(NCU_TABLE):
            Path(path).write_text(table(*rows))

    return start, stop


def attention(gpu: Gpu, addresses: Addresses) -> Any:
    """`scaled_dot_product_attention` as one kernel, as on a GPU; a build without CUDA would take it apart."""
    on_cpu = torch.nn.functional.scaled_dot_product_attention

    def one_kernel(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(query, FakeTensor):
            return on_cpu(query, key, value, *args, **kwargs)
        out = torch.empty(query.shape, dtype=query.dtype, device="cuda")
        touched = tuple(dict.fromkeys(map(addresses.span, (query, key, value, out))))
        flops = 4.0 * query.numel() * key.shape[-2]  # both products
        gpu.launch(Launch("attention", touched, flops, query.element_size()))
        return out

    return one_kernel


def _nothing(*_: Any, **__: Any) -> Any:
    return contextlib.nullcontext()


class _Generator:
    """A generator on the device: its values are never seen."""

    def manual_seed(self, _seed: int) -> "_Generator":
        return self


def install(gpu: Gpu) -> None:
    """Make torch see `gpu` in this process, for good."""
    spec, addresses = gpu.spec, Addresses()
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # before any patch: it imports a good part of torch
    properties = types.SimpleNamespace(
        name=spec.name, major=spec.capability[0], minor=spec.capability[1], total_memory=spec.memory_bytes,
        L2_cache_size=spec.l2_bytes, multi_processor_count=spec.sms, uuid="simulated", regs_per_multiprocessor=65536,
        shared_memory_per_block_optin=spec.shared_bytes_per_block,
    )  # fmt: skip
    event = event_class(gpu)
    stream = stream_class(gpu, event)
    captured, graph = graph_classes(gpu)

    def sleep(cycles: int) -> None:
        gpu.busy(cycles / (spec.top_mhz * 1e6))

    for name, value in {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _device: None,
        "get_device_properties": lambda _device=None: properties,
        "get_device_capability": lambda _device=None: spec.capability,
        "get_device_name": lambda _device=None: spec.name,
        "mem_get_info": lambda _device=None: (spec.free_bytes, spec.memory_bytes),
        "can_device_access_peer": lambda _one, _other: False,
        "synchronize": lambda _device=None: gpu.wait(),
        "empty_cache": lambda: None,
        "is_current_stream_capturing": lambda: gpu.capturing is not None,
        "current_stream": lambda _device=None: stream(),
        "default_stream": lambda _device=None: stream(),
        "Event": event,
        "Stream": stream,
        "ExternalStream": stream,
        "CUDAGraph": captured,
        "graph": graph,
        "stream": _nothing,
        "device": _nothing,
        "device_of": _nothing,
        "_sleep": sleep,
    }.items():
        setattr(torch.cuda, name, value)
    torch.cuda.nccl.version = lambda: (2, 28, 9)
    torch.nn.functional.scaled_dot_product_attention = attention(gpu, addresses)
    torch.cuda.profiler.start, torch.cuda.profiler.stop = profiler(gpu)
    _patch_tensors(gpu, addresses)
    fake_tensor.init_gpu_context = lambda _device: None
    mode.__enter__()
    Ops(gpu, addresses, spec.free_bytes).__enter__()
    gpu.span = addresses.span  # type: ignore[attr-defined]  # of the Triton side


def _patch_tensors(gpu: Gpu, addresses: Addresses) -> None:
    """What C++ answers without the dispatcher, or refuses on a build of torch without CUDA."""
    tensor, cpu_generator, randn, make = torch.Tensor, torch.Generator, torch.randn, torch.tensor
    to, copy, pointer, listed = tensor.to, tensor.copy_, tensor.data_ptr, tensor.tolist
    get, put = tensor.__getitem__, tensor.__setitem__

    def fake(one: Any) -> bool:
        return isinstance(one, FakeTensor)

    def to_device(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked = [one for one in (*args, kwargs.get("device")) if isinstance(one, str | torch.device)]
        if any(str(one).startswith("cuda") for one in asked) and not fake(self):
            dtype = next((one for one in (*args, kwargs.get("dtype")) if isinstance(one, torch.dtype)), self.dtype)
            moved = torch.empty(self.shape, dtype=dtype, device="cuda")
            if not dtype.is_floating_point:
                moved.known = listed(self)  # lengths and page tables, which a reference reads back
            return moved
        return to(self, *args, **kwargs)

    def tolist(self: Any) -> Any:
        if not fake(self):
            return listed(self)
        gpu.wait()
        if hasattr(self, "known"):
            return self.known

        def zeros(shape: tuple[int, ...]) -> Any:
            return [zeros(shape[1:]) for _ in range(shape[0])] if shape else 0

        return zeros(tuple(self.shape))

    def take(self: Any, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        with unset_fake_temporarily():
            plain = torch.empty_strided(self.shape, self.stride(), dtype=self.dtype, device="meta")
            chosen = get(plain, tuple(_meta(one) for one in parts))
        if any(isinstance(one, torch.Tensor | list) for one in parts):
            return torch.empty(chosen.shape, dtype=self.dtype, device="cuda")
        return torch.as_strided(self, chosen.shape, chosen.stride(), chosen.storage_offset() + self.storage_offset())

    def getitem(self: Any, index: Any) -> Any:
        if not fake(self):
            return get(self, index)
        parts = index if isinstance(index, tuple) else (index,)
        return take(self, index) if any(map(torch.is_tensor, parts)) else view_once(self, index)

    def remembered(make: Any) -> Any:
        """Views of one tensor, each made once: pools and graphs ask for the same ones again and again."""

        def viewed(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not fake(self) or self.device.type != "cuda":
                return make(self, *args, **kwargs)
            known = self.__dict__.setdefault("views", {})
            key = (make, repr(args), repr(kwargs))
            if key not in known:
                known[key] = make(self, *args, **kwargs)
            return known[key]

        return viewed

    view_once = remembered(take)

    def copy_into(self: Any, other: Any, *args: Any, **kwargs: Any) -> Any:
        ends = [one for one in (self, other) if fake(one) and one.device.type == "cuda"]
        if not ends:  # on the CPU, or within FakeTensorMode, which copies tensors without data
            return copy(self, other, *args, **kwargs)
        gpu.launch(Launch("copy", tuple(dict.fromkeys(map(addresses.span, ends))), itemsize=other.element_size()))
        if not fake(self):
            gpu.wait()
        return self

    def value_of(read: Any, kind: Any) -> Any:
        def value(self: Any, *args: Any) -> Any:
            if not fake(self):
                return read(self, *args)
            gpu.wait()  # the host waits for what it reads
            return kind(getattr(self, "known", VALUES.get(self.dtype, 0)))

        return value

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Any:
        found = make(data, *args, **kwargs)
        return to_device(found, device) if device is not None else found

    for name, kind in {"__bool__": bool, "__float__": float, "__int__": int, "__index__": int}.items():
        setattr(tensor, name, value_of(getattr(tensor, name), kind))
    tensor.item = value_of(tensor.item, lambda value: value)
    tensor.to, tensor.tolist, tensor.__getitem__ = to_device, tolist, getitem
    tensor.cuda = lambda self, *_, **__: to_device(self, "cuda")
    # an empty tensor has no address
    tensor.data_ptr = lambda self: (addresses.of(self) if self.numel() else 0) if fake(self) else pointer(self)
    tensor.copy_ = copy_into
    for name in ("view", "t", "transpose", "unflatten", "chunk", "split"):
        setattr(tensor, name, remembered(getattr(tensor, name)))
    tensor.__setitem__ = lambda self, index, value: None if fake(self) else put(self, index, value)
    torch.tensor = made
    torch.randn = lambda *sizes, generator=None, **kwargs: randn(
        *sizes, **(kwargs if isinstance(generator, _Generator) else {"generator": generator, **kwargs})
    )
    torch.Generator = lambda device="cpu": _Generator() if str(device).startswith("cuda") else cpu_generator(device)


def _meta(index: Any) -> Any:
    """An index tensor without values."""
    if isinstance(index, torch.Tensor):
        return torch.zeros(index.shape, dtype=index.dtype, device="meta")
    return index
