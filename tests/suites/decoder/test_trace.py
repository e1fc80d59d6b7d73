"""What happened when, on one clock for all ranks."""

import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from suites.decoder.trace import START, HostTraceRecorder

HOSTS = {0: "a0" * 8, 1: "a0" * 8, 2: "b7" * 8}
AHEAD = {0: 3.0, 1: 3.0, 2: 500.0}
ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def found():
    """What each of three ranks on two hosts takes its clock for."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "tests.suites.decoder.skewed_rank"]
    ranks = [
        subprocess.Popen(
            [*program, *map(str, (rank, 3, port, AHEAD[rank], HOSTS[rank]))],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank in HOSTS
    ]
    try:
        return [float(rank.communicate(timeout=60)[0]) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


def test_another_hosts_clock_is_laid_on_that_of_rank_0(found):
    assert found[2] == pytest.approx(497, abs=1)  # half a round trip on the loopback is far below a second


def test_ranks_of_one_host_share_a_clock(found):
    assert found[:2] == [0, 0]


def test_rows_are_in_order_and_within_what_was_called():
    trace, before = HostTraceRecorder(), time.perf_counter()
    trace.begin()
    trace.mark(START, 0, -1)
    trace.run("linears", 0, 1, partial(time.sleep, 0.01))
    trace.run("send", 2, 0, lambda: None)
    after, rows = time.perf_counter(), trace.columns(0.0)
    assert (rows["kind"], rows["step"], rows["slot"]) == ([START, "linears", "send"], [0, 0, 2], [-1, 1, 0])
    assert before <= rows["start"][0] == rows["end"][0] <= rows["start"][1]
    assert rows["start"][1] + 0.01 <= rows["end"][1] <= rows["start"][2] <= rows["end"][2] <= after


def test_a_clock_that_is_ahead_is_put_back():
    trace = HostTraceRecorder()
    trace.begin()
    trace.mark(START, 0, -1)
    here, there = trace.columns(0.0)["start"][0], trace.columns(100.0)["start"][0]
    assert here - there == pytest.approx(100)


def test_a_walk_begins_with_no_rows_of_the_last_one():
    trace = HostTraceRecorder()
    for _ in range(2):
        trace.begin()
        trace.mark(START, 0, -1)
    assert len(trace.columns(0.0)["kind"]) == 1
