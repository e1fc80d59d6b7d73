"""How long do all-reduce, all-gather, reduce-scatter and broadcast take over all ranks, from 1 KiB to 256 MiB?"""

import pytest

from comm.collectives import COLLECTIVES
from kernels.timing.device import current_device
from suites.case import RankHow
from suites.collect import Measure
from suites.probes.collective import LADDER, SHORT_LADDER, add_collectives, ranks_of

LADDERS = {
    "all_reduce": LADDER,
    "all_gather": SHORT_LADDER,
    "reduce_scatter": SHORT_LADDER,
    "broadcast": SHORT_LADDER,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench function below its axes."""
    add_collectives(metafunc, LADDERS, ranks_of(metafunc, current_device().kind))


def bench_collective(measure: Measure, op: str, message: int, how: RankHow) -> None:
    measure(COLLECTIVES[op], "communication", how, message_bytes=message)
