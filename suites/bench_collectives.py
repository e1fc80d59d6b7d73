"""How long do all-reduce, all-gather, reduce-scatter and broadcast take over all ranks, from 1 KiB to 256 MiB?"""

import pytest

from comm.collectives import COLLECTIVES
from kernels.timing.device import current_device
from suites.case import CollectiveRunConfig
from suites.collect import Measure
from suites.probes.collective import MESSAGE_SIZES, SPARSE_MESSAGE_SIZES, add_collectives, plan_run_ranks

MESSAGE_SIZES_BY_OP = {
    "all_reduce": MESSAGE_SIZES,
    "all_gather": SPARSE_MESSAGE_SIZES,
    "reduce_scatter": SPARSE_MESSAGE_SIZES,
    "broadcast": SPARSE_MESSAGE_SIZES,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench function below its axes."""
    add_collectives(metafunc, MESSAGE_SIZES_BY_OP, plan_run_ranks(metafunc, current_device().kind))


def bench_collective(measure: Measure, op: str, message: int, how: CollectiveRunConfig) -> None:
    measure(COLLECTIVES[op], "communication", how, message_bytes=message)
