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

from tests.simulated_gpu import fake_tensors
from tests.simulated_gpu.fake_tensors import Addresses
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


class DispatchMode(TorchDispatchMode):
    """Sends ops on `cuda` to FakeTensorMode and accounts for them; runs all others as if nothing were faked."""

    def __init__(self, gpu: Gpu, addresses: Addresses, max_bytes: int) -> None:
        super().__init__()
        self._gpu, self._addresses, self._most = gpu, addresses, max_bytes

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
    fake_tensors.install(gpu, addresses)
    fake_tensor.init_gpu_context = lambda _device: None
    mode.__enter__()
    DispatchMode(gpu, addresses, spec.free_bytes).__enter__()
    gpu.span = addresses.span  # type: ignore[attr-defined]  # of the Triton side
