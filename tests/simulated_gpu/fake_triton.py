"""Triton on the simulated device: launches are bound and keyed as on a GPU, and compiled only where that is asked.

Compiled is up to LLVM's code: errors of the compiler and shared memory show there, and what is behind it takes half of
the time. Tests of compiled forms look at the machine code.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime import jit

from tests.simulated_gpu.hardware import Gpu, Launch

LOAD_SECONDS = 5e-3
"""Host time of a first launch whose code is in Triton's cache on disk."""
COMPILE_SECONDS = 0.45
"""Host time of one whose code is not: seen as 0.44 s a kernel on a machine of 16 cores, one at a time."""
SCRATCH = ("partials", "arrived")
"""Arguments of which a launch touches next to nothing: how large they are depends on the calls before."""


class Driver:
    """What Triton asks of a driver before it compiles or launches."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self._target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def set_current_device(self, _device: int) -> None:
        """The only one."""

    def get_current_stream(self, _device: int) -> int:
        """The only one."""
        return 7

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return self._target

    def get_active_torch_device(self) -> torch.device:
        """The only one."""
        return torch.device("cuda", 0)


class First(Protocol):
    """Told of each distinct code when it is first launched, and whether it is in the cache on disk."""

    def __call__(self, fn: Any, args: Any, options: Any, code: str, warm: bool) -> None:
        """Note it."""


class Launcher:
    """Stands in for `JITFunction.run`.

    Args:
        gpu: where launches go.
        compiled: keys whose code is in the cache on disk.
        first: told of each first launch.
        made: told the code of what was compiled ahead of any launch.
    """

    def __init__(self, gpu: Gpu, compiled: set[str], first: First, made: Callable[[str], None]) -> None:
        self._gpu, self._first, self._made = gpu, first, made
        self.compiled, self._loaded = compiled, set[tuple[int, str]]()

    def run(self, fn: Any, args: tuple[Any, ...], grid: Any, warmup: bool, options: dict[str, Any]) -> Any:
        """Bind, key, and launch; with `warmup` compile for the simulated architecture and launch nothing."""
        keywords = {**options, "debug": options.get("debug", False) or False}
        if hasattr(triton.knobs.compilation, "instrumentation_mode"):
            keywords["instrumentation_mode"] = triton.knobs.compilation.instrumentation_mode
        _, keys, target, backend, binder = fn.device_caches[0]
        bound, specialization, rest = binder(*args, **keywords)
        key = jit.compute_cache_key(keys, specialization, dict(sorted(rest.items())))
        if warmup:
            return self._compile(fn, key, backend, keywords, bound, specialization, rest, target)
        if (id(fn), key) not in self._loaded:
            self._load(fn, key, args, options)
        sizes = grid(bound) if callable(grid) else grid
        if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
            self._gpu.fault(f"{fn.__name__}: launched with the grid {sizes}")
        self._gpu.launch(self._as_launch(fn, bound, sizes[0]))
        return None

    def _load(self, fn: Any, key: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self._gpu.capturing is not None:
            self._gpu.fault(f"{fn.__name__}: its first launch is inside a graph capture")
        code = digest(fn, key)
        warm = code in self.compiled
        self._gpu.host += LOAD_SECONDS  # a compile is counted, and charged to the step's estimate
        self._loaded.add((id(fn), key))
        self._first(fn, args, options, code, warm)

    def _compile(
        self, fn: Any, key: str, backend: Any, keywords: Any, bound: Any, specialization: Any, rest: Any, target: Any
    ) -> Any:
        options, signature, constants, attributes = fn._pack_args(backend, keywords, bound, specialization, rest)
        source = fn.ASTSource(fn, signature, constants, attributes)
        made = fn.compile(source, target=target, options=options.__dict__)
        if made.metadata.shared > self._gpu.spec.shared_bytes_per_block:
            most = self._gpu.spec.shared_bytes_per_block
            self._gpu.fault(
                f"{fn.__name__}: asks for {made.metadata.shared} bytes of shared memory, a block has {most}"
            )
        self._made(digest(fn, key))
        return made

    def _as_launch(self, fn: Any, bound: dict[str, Any], programs: int) -> Launch:
        operands = [getattr(value, "base", value) for name, value in bound.items() if name not in SCRATCH]
        tensors = [one for one in operands if isinstance(one, torch.Tensor)]
        span = self._gpu.span  # type: ignore[attr-defined]
        touched = dict.fromkeys(span(one) for one in tensors)
        itemsize = max((one.element_size() for one in tensors[:2]), default=2)
        return Launch(fn.__name__, tuple(touched), linear_flops(tensors), itemsize, programs)


def linear_flops(tensors: list[torch.Tensor]) -> float:
    """2 x tokens x n x k of x[tokens, k] and W[n, k] where the first two matrices are such; else nothing."""
    matrices = [one for one in tensors if one.dim() == 2][:2]
    if len(matrices) == 2 and matrices[0].shape[1] == matrices[1].shape[1]:
        return 2.0 * matrices[0].numel() * matrices[1].shape[0]
    return 0.0


def digest(fn: Any, key: str) -> str:
    """Short name of one distinct code: the same in every process."""
    return hashlib.sha256(f"{fn.__module__}:{fn.__name__} {key}".encode()).hexdigest()[:16]


def _unassembled(_backend: Any, _code: Any, metadata: dict[str, Any], *_: Any) -> str:
    metadata["name"] = "simulated"
    return ""


def install(launcher: Launcher, capability: tuple[int, int]) -> None:
    """Make Triton launch on the simulated device in this process, for good."""
    triton.runtime.driver.set_active(Driver(capability))
    CUDABackend.make_ptx, CUDABackend.make_cubin = _unassembled, lambda *_: b""

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        return launcher.run(self, args, grid, warmup, options)

    jit.JITFunction.run = run
