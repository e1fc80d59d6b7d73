"""What can this machine do at best: read, copy, multiply, and launch nothing at all?"""

from collections.abc import Callable

import pytest

from kernels.ceilings import TORCH_COPY, TORCH_LAUNCH, TORCH_READ, TRITON_EMPTY, TRITON_READ
from kernels.linear import TORCH_LINEAR
from kernels.timing.device import current_device
from specs.units import ITEMSIZE
from suites.axes import DEFAULT_LAUNCHES, add_run_configs
from suites.case import RunConfig
from suites.collect import Measure

READ_KERNELS = {"torch": TORCH_READ, "triton": TRITON_READ}
MATMUL_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
"""Edges of the square product, by device kind.

They are large enough to fill the device, and two, because neither is always faster.
"""
READ_BYTES = {"cpu": (), "cuda": tuple(2**power for power in (24, 25, 26, 27))}
"""Bytes of smaller reads, 17 to 134 MB.

A line through their times and the large read's separates launch from bandwidth.
"""
BOTH_LAUNCHES = ("eager", "graph")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes; every run has its ceilings."""
    kind, function = current_device().kind, metafunc.function
    fixed = {
        "cache": ("cold",),
        "launch": _launches(function, kind),
        "implementation": _implementations(function, kind),
    }
    if function is bench_matmul:
        metafunc.parametrize("edge", MATMUL_SIZES[kind], ids=[f"{edge}cubed" for edge in MATMUL_SIZES[kind]])
    else:
        fixed["dtype"] = ("fp32",)
    if function is bench_sized_read:
        metafunc.parametrize("size", READ_BYTES[kind], ids=[f"{size >> 20}MiB" for size in READ_BYTES[kind]])
    add_run_configs(metafunc, fixed)


def bench_read(measure: Measure, how: RunConfig) -> None:
    measure(READ_KERNELS[how.implementation], "ceilings", how, elements=_cold_elements(how))


def bench_sized_read(measure: Measure, size: int, how: RunConfig) -> None:
    measure(TRITON_READ, "ceilings", how, elements=size // ITEMSIZE[how.dtype])


def bench_copy(measure: Measure, how: RunConfig) -> None:
    measure(TORCH_COPY, "ceilings", how, elements=_cold_elements(how) // 2)


def bench_matmul(measure: Measure, edge: int, how: RunConfig) -> None:
    measure(TORCH_LINEAR, "ceilings", how, tokens=edge, n=edge, k=edge)


def bench_launch(measure: Measure, how: RunConfig) -> None:
    measure(TORCH_LAUNCH, "ceilings", how)


def bench_empty(measure: Measure, how: RunConfig) -> None:
    measure(TRITON_EMPTY, "ceilings", how)


def _implementations(function: Callable[..., None], kind: str) -> tuple[str, ...]:
    """Implementations of a bench function.

    An empty kernel and smaller reads need a GPU, where a launch counts.
    """
    if function in (bench_empty, bench_sized_read):
        return ("triton",) if kind == "cuda" else ()
    return tuple(READ_KERNELS) if function is bench_read else ("torch",)


def _launches(function: Callable[..., None], kind: str) -> tuple[str, ...]:
    """Launches of a bench function: both if they may differ.

    A GPU may use another engine for a copy in a graph than for an eager copy.
    """
    if function is bench_launch or (function is bench_copy and kind == "cuda"):
        return BOTH_LAUNCHES
    return DEFAULT_LAUNCHES[kind]


def _cold_elements(how: RunConfig) -> int:
    return current_device().cold_bytes // ITEMSIZE[how.dtype]
