"""The libraries beside torch and Triton on the simulated device: NVML, CuPy and cuBLASLt's bindings."""

import contextlib
import importlib.machinery
import sys
import types
from enum import IntEnum
from typing import Any

import numpy as np

from tests.simulated_gpu.hardware import Gpu, Launch

NVML_SECONDS = 30e-6
"""Host time of one question to NVML."""
POWER_CAP = 0x04
"""NVML's bit for a software power cap."""
ITEMSIZE = {0: 4, 2: 2, 14: 2}
"""Bytes of an element by `cudaDataType_t`."""


class NVMLError(Exception):
    """NVML's own."""


def nvml(gpu: Gpu) -> types.ModuleType:
    """The module `pynvml`; it raises NVMLError for whatever is not simulated."""
    module = types.ModuleType("pynvml")

    def clock(_handle: Any, kind: int) -> int:
        gpu.host += NVML_SECONDS
        return int(gpu.sm_mhz()) if kind == 1 else 3201

    def reasons(_handle: Any) -> int:
        gpu.host += NVML_SECONDS
        return POWER_CAP if gpu.held_back() else 0

    module.__dict__.update(
        NVMLError=NVMLError, NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, NVML_TEMPERATURE_GPU=0, NVML_NVLINK_MAX_LINKS=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda _uuid: "handle",
        nvmlDeviceGetHandleByIndex=lambda _index: "handle",
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetClockInfo=clock,
        nvmlDeviceGetMaxClockInfo=lambda _handle, _kind: int(gpu.spec.top_mhz),
        nvmlDeviceGetCurrentClocksEventReasons=reasons,
        nvmlDeviceGetPowerUsage=lambda _handle: 420_000,
        nvmlDeviceGetTemperature=lambda _handle, _kind: 51,
        nvmlSystemGetDriverVersion=lambda: "simulated",
    )  # fmt: skip

    def unknown(_name: str) -> Any:
        def ask(*_: Any) -> Any:
            raise NVMLError("not simulated")

        return ask

    module.__getattr__ = unknown  # type: ignore[method-assign]
    return module


def cupy(gpu: Gpu) -> types.ModuleType:
    """What of CuPy the CUDA C++ kernel uses."""
    module, cuda = types.ModuleType("cupy"), types.ModuleType("cupy.cuda")

    class Function:
        max_dynamic_shared_size_bytes = 48 * 1024

        def __call__(self, grid: Any, block: Any, args: Any, shared_mem: int = 0) -> None:
            if shared_mem > self.max_dynamic_shared_size_bytes:
                raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {shared_mem} bytes of shared memory were not asked for")
            x, weight, out, n, k = args
            gpu.launch(Launch("cuda_gemv", ((x, 2 * k), (weight, 2 * n * k), (out, 2 * n)), 2.0 * n * k))

    class RawModule:
        def __init__(self, **_: Any) -> None:
            if gpu.capturing is not None:
                raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: a module is loaded inside a capture")

        def get_function(self, _name: str) -> Function:
            return Function()

    module.RawModule, module.cuda, module.__version__ = RawModule, cuda, "14.2.0"  # type: ignore[attr-defined]
    cuda.Device = lambda _index=0: contextlib.nullcontext()  # type: ignore[attr-defined]
    cuda.ExternalStream = lambda _handle, _device=0: contextlib.nullcontext()  # type: ignore[attr-defined]
    return module


class _Description(IntEnum):
    TRANSA = 3


class _Preference(IntEnum):
    MAX_WORKSPACE_BYTES = 1


_RESULT = np.dtype(
    [("algo", [("data_", "<u8", (8,))]), ("workspace_size", "<u8"), ("state", "<i4"), ("waves_count", "<f4"),
     ("reserved", "<i4", (4,))]
)  # fmt: skip


class CublasLt(types.ModuleType):
    """`nvmath.bindings.cublasLt`: every proposal computes, and proposal p takes p % 7 hundredths longer."""

    MatmulDescAttribute, MatmulPreferenceAttribute = _Description, _Preference
    matmul_heuristic_result_dtype = _RESULT

    def __init__(self, gpu: Gpu) -> None:
        super().__init__("nvmath.bindings.cublasLt")
        self._gpu, self._layouts = gpu, dict[int, tuple[int, int, int]]()
        self._places: dict[int, int] = {}

    def create(self) -> int:
        """A handle."""
        return 5

    def matmul_desc_create(self, _compute: int, _scale: int) -> int:
        """A description."""
        return 6

    def matrix_layout_create(self, kind: int, rows: int, columns: int, _ld: int) -> int:
        """A layout, whose size a product is charged."""
        self._layouts[number := 1000 + len(self._layouts)] = (kind, rows, columns)
        return number

    def matmul_preference_create(self) -> int:
        """Preferences."""
        return 7

    def matmul_preference_destroy(self, _number: int) -> None:
        """Nothing is kept."""

    def get_matmul_desc_attribute_dtype(self, _attribute: int) -> Any:
        """TRANSA is an int32."""
        return np.int32

    def get_matmul_preference_attribute_dtype(self, _attribute: int) -> Any:
        """MAX_WORKSPACE_BYTES is a uint64."""
        return np.uint64

    def matmul_desc_set_attribute(self, *_: Any) -> None:
        """Accepted."""

    def matmul_preference_set_attribute(self, *_: Any) -> None:
        """Accepted."""

    def matmul_algo_get_heuristic(self, *args: Any) -> None:
        """Fill in as many proposals as are asked for."""
        import ctypes

        wanted, results, returned = args[7], args[8], args[9]
        room = (ctypes.c_char * (wanted * _RESULT.itemsize)).from_address(results)
        np.frombuffer(room, _RESULT)["state"][:] = 0
        ctypes.c_int32.from_address(returned).value = wanted
        self._places |= {results + place * _RESULT.itemsize: place for place in range(wanted)}

    def matmul(self, *args: Any) -> None:
        """One launch that reads both operands and writes the result."""
        weight, weight_layout, x, x_layout, out, out_layout = args[3], args[4], args[5], args[6], args[10], args[11]
        sizes = [self._layouts[one] for one in (weight_layout, x_layout, out_layout)]
        itemsize = ITEMSIZE[sizes[0][0]]
        places = zip((weight, x, out), sizes, strict=True)
        touched = tuple((address, rows * columns * itemsize) for address, (_, rows, columns) in places)
        flops = 2.0 * sizes[0][1] * sizes[0][2] * sizes[1][2]
        slower = 1 + self._places.get(args[12], 0) % 7 / 100
        self._gpu.launch(Launch("cublaslt", touched, flops * slower, itemsize))


def install(gpu: Gpu) -> None:
    """Put the stand-ins where imports find them."""
    bindings, package = types.ModuleType("nvmath.bindings"), types.ModuleType("nvmath")
    bindings.cublasLt = CublasLt(gpu)  # type: ignore[attr-defined]
    package.bindings, package.__path__ = bindings, []  # type: ignore[attr-defined]
    bindings.__path__ = []  # type: ignore[attr-defined]
    raw = cupy(gpu)
    sys.modules |= {
        "pynvml": nvml(gpu), "cupy": raw, "cupy.cuda": raw.cuda, "nvmath": package, "nvmath.bindings": bindings,
        "nvmath.bindings.cublasLt": bindings.cublasLt,
    }  # fmt: skip
    for name, module in list(sys.modules.items()):
        if name in ("cupy", "nvmath", "pynvml", "cupy.cuda", "nvmath.bindings", "nvmath.bindings.cublasLt"):
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
