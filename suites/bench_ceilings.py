"""What can this machine do at best: read, copy, multiply, and launch nothing at all?"""

import pytest

from kernels.copy import TORCH_COPY
from kernels.launch import TORCH_LAUNCH
from kernels.linear import TORCH_LINEAR
from kernels.read import TORCH_READ, TRITON_READ
from kernels.timing.device import current_device
from specs.dtypes import ITEMSIZE
from suites.axes import LAUNCHES, add_how
from suites.how import How
from suites.plan import Measure

READS = {"torch": TORCH_READ, "triton": TRITON_READ}
EDGES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
"""Sizes of the square product: large enough to fill the device, and two, because neither is always the better."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes: every run has its ceilings, whatever else it asks for."""
    kind = current_device().kind
    implementations = tuple(READS) if metafunc.function is bench_read else ("torch",)
    launches: tuple[str, ...] = ("eager", "graph") if metafunc.function is bench_launch else LAUNCHES[kind]
    fixed = {"cache": ("cold",), "launch": launches, "implementation": implementations}
    if metafunc.function is bench_matmul:
        metafunc.parametrize("edge", EDGES[kind], ids=[f"{edge}cubed" for edge in EDGES[kind]])
    else:
        fixed["dtype"] = ("fp32",)
    add_how(metafunc, fixed)


def bench_read(measure: Measure, how: How) -> None:
    measure(READS[how.implementation], "ceilings", how, elements=_cold_elements(how))


def bench_copy(measure: Measure, how: How) -> None:
    measure(TORCH_COPY, "ceilings", how, elements=_cold_elements(how) // 2)


def bench_matmul(measure: Measure, edge: int, how: How) -> None:
    measure(TORCH_LINEAR, "ceilings", how, tokens=edge, n=edge, k=edge)


def bench_launch(measure: Measure, how: How) -> None:
    measure(TORCH_LAUNCH, "ceilings", how)


def _cold_elements(how: How) -> int:
    return current_device().cold_bytes // ITEMSIZE[how.dtype]
