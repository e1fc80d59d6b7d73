"""What do a model's own messages cost: two all-reduces a layer under TP, with the norm behind, and a hop under PP?"""

import pytest

from comm.collectives import COLLECTIVES
from kernels.timing.device import current_device
from specs.units import ITEMSIZE
from suites.case import RankHow
from suites.collect import Measure
from suites.probes.collective import Shipment, add_shipments, ranks_of

OF_TP = ("all_reduce", "all_reduce_rmsnorm")
OF_PP = ("send_recv",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes."""
    ops = OF_TP if metafunc.function is bench_tp else OF_PP
    add_shipments(metafunc, ops, ranks_of(metafunc, current_device().kind), under_tp=ops is OF_TP)


def bench_tp(measure: Measure, op: str, shipment: Shipment, how: RankHow) -> None:
    measure(COLLECTIVES[op], "messages", how, shipment, message_bytes=shipment.elements * ITEMSIZE[how.dtype])


def bench_pp(measure: Measure, op: str, shipment: Shipment, how: RankHow) -> None:
    measure(COLLECTIVES[op], "messages", how, shipment, message_bytes=shipment.elements * ITEMSIZE[how.dtype])
