"""What does a hop between two ranks cost: one way, both ways, in a ring of stages, there and back, as a bare copy?"""

import pytest

from comm.collectives import COLLECTIVES
from kernels.timing.device import current_device
from suites.case import RankHow
from suites.collect import Measure
from suites.probes.collective import LADDER, SHORT_LADDER, add_collectives, add_pairs, ranks_of

LADDERS = {"send_recv": LADDER, "exchange": SHORT_LADDER, "ring_shift": SHORT_LADDER, "ping_pong": SHORT_LADDER}
COPIES = {"peer_copy": {"cpu": (2**14,), "cuda": (2**14, 2**28)}}
"""A latency and a bandwidth for each pair."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes."""
    ranks = ranks_of(metafunc, current_device().kind)
    if metafunc.function is bench_peer_copy:
        add_collectives(metafunc, COPIES, ranks)
        add_pairs(metafunc, ranks)
    else:
        add_collectives(metafunc, LADDERS, ranks)


def bench_point_to_point(measure: Measure, op: str, message: int, how: RankHow) -> None:
    measure(COLLECTIVES[op], "communication", how, message_bytes=message)


def bench_peer_copy(measure: Measure, op: str, message: int, how: RankHow, pair: tuple[int, int]) -> None:
    measure(COLLECTIVES[op], "communication", how, message_bytes=message, source=pair[0], target=pair[1])
