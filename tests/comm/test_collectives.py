"""Every collective over gloo, on two ranks and on three: parts, direction and order cannot hide behind symmetry."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from comm.backends import BACKENDS
from comm.backends.torch_distributed import GLOO
from comm.collective import Role
from comm.collectives import COLLECTIVES
from specs.traffic import COMM_IMPLEMENTATIONS, TRAFFIC

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 120


@pytest.fixture(scope="module", params=[2, 3], ids=["2 ranks", "3 ranks"])
def ranks(request, tmp_path_factory):
    """What each rank told: whether the barrier waited for the last one, and each collective's error."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("gloo")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.comm.gloo_ranks"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(request.param), str(port), str(folder)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(request.param)
    ]  # fmt: skip
    try:
        return [json.loads(one.communicate(timeout=LIMIT_SECONDS)[0].splitlines()[-1]) for one in processes]
    finally:
        for one in processes:
            one.kill()
            one.wait()


@pytest.fixture(scope="module")
def errors(ranks):
    return [one["errors"] for one in ranks]


def test_a_barrier_holds_every_rank_until_the_last_has_come(ranks):
    assert all(one["waited"] for one in ranks)


def test_every_result_is_right_to_the_bit_or_to_its_rounding(errors):
    for of_rank in errors:
        for case, error in of_rank.items():
            op, dtype = case.split()
            assert error is None or error <= COLLECTIVES[op].rtol[dtype], case
            assert error is None or error == 0 or "norm" in op


def test_ranks_are_given_what_the_operation_gives_them(errors):
    ranks, last = len(errors), len(errors) - 1
    given = {op: [rank for rank in range(ranks) if errors[rank][f"{op} bf16"] is not None] for op in COLLECTIVES
             if f"{op} bf16" in errors[0]}  # fmt: skip
    everybody = list(range(ranks))
    assert given == {
        "all_reduce": everybody, "all_gather": everybody, "reduce_scatter": everybody, "broadcast": everybody,
        "send_recv": [0], "exchange": [0, last], "ring_shift": everybody, "ping_pong": [0, last],
        "all_reduce_rmsnorm": everybody,
    }  # fmt: skip


def test_every_collective_has_its_traffic_and_every_backend_its_name():
    assert set(COLLECTIVES) == set(TRAFFIC)
    assert set(BACKENDS) <= set(COMM_IMPLEMENTATIONS)
    assert set(COMM_IMPLEMENTATIONS) - set(BACKENDS) <= {"nccl", "rccl"}, "one of them by the build of torch"


def test_every_method_that_a_backend_lists_is_its_own():
    known = {collective.method for collective in COLLECTIVES.values()}
    for backend in BACKENDS.values():
        assert backend.methods & known
        assert backend.in_place <= backend.methods
        assert backend.methods <= known


def test_only_an_all_reduce_in_place_multiplies_its_message():
    growing = {
        op
        for op, collective in COLLECTIVES.items()
        if collective.accumulates(Role(0, 2, 8, 1, in_place=collective.method in GLOO.in_place))
    }
    assert growing == {"all_reduce"}
