"""What do a model's own messages cost: two all-reduces a layer under TP, with the norm behind, and a hop under PP?"""

import pytest

from comm.collectives import COLLECTIVES
from kernels.timing.device import current_device
from specs.units import ITEMSIZE
from suites.case import CollectiveRunConfig
from suites.collect import Measure
from suites.probes.collective import ModelMessage, add_model_messages, plan_run_ranks

TP_OPS = ("all_reduce", "all_reduce_rmsnorm")
PP_OPS = ("send_recv",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes."""
    ops = TP_OPS if metafunc.function is bench_tp else PP_OPS
    add_model_messages(metafunc, ops, plan_run_ranks(metafunc, current_device().kind), under_tp=ops is TP_OPS)


def bench_tp(measure: Measure, op: str, shipment: ModelMessage, how: CollectiveRunConfig) -> None:
    measure(COLLECTIVES[op], "messages", how, shipment, message_bytes=shipment.elements * ITEMSIZE[how.dtype])


def bench_pp(measure: Measure, op: str, shipment: ModelMessage, how: CollectiveRunConfig) -> None:
    measure(COLLECTIVES[op], "messages", how, shipment, message_bytes=shipment.elements * ITEMSIZE[how.dtype])
