"""What does a hop between two ranks cost: one way, both ways, in a ring of stages, there and back, as a bare copy?"""

import pytest

from comm.collectives import COLLECTIVES
from kernels.timing.device import current_device
from suites.case import CollectiveRunConfig
from suites.collect import Measure
from suites.probes.collective import (
    MESSAGE_SIZES,
    SPARSE_MESSAGE_SIZES,
    add_collectives,
    add_rank_pairs,
    plan_run_ranks,
)

MESSAGE_SIZES_BY_OP = {
    "send_recv": MESSAGE_SIZES,
    "exchange": SPARSE_MESSAGE_SIZES,
    "ring_shift": SPARSE_MESSAGE_SIZES,
    "ping_pong": SPARSE_MESSAGE_SIZES,
}
COPY_SIZES_BY_OP = {"peer_copy": {"cpu": (2**14,), "cuda": (2**14, 2**28)}}
"""Message sizes for the latency and the bandwidth of each pair."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes."""
    ranks = plan_run_ranks(metafunc, current_device().kind)
    if metafunc.function is bench_peer_copy:
        add_collectives(metafunc, COPY_SIZES_BY_OP, ranks)
        add_rank_pairs(metafunc, ranks)
    else:
        add_collectives(metafunc, MESSAGE_SIZES_BY_OP, ranks)


def bench_point_to_point(measure: Measure, op: str, message: int, how: CollectiveRunConfig) -> None:
    measure(COLLECTIVES[op], "communication", how, message_bytes=message)


def bench_peer_copy(measure: Measure, op: str, message: int, how: CollectiveRunConfig, pair: tuple[int, int]) -> None:
    measure(COLLECTIVES[op], "communication", how, message_bytes=message, source=pair[0], target=pair[1])
