"""Overhead of the probes over a bare all-reduce loop, in ABBA blocks.

Command: `python -m suites overhead`.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from comm.collectives import ALL_REDUCE
from specs import statistics
from specs.errors import UserError
from suites.case import CollectiveRunConfig
from suites.probes.collective import CollectiveBench, CollectiveCaseState, plan_collective_case
from suites.workers.launcher import plan_ranks, rank_environment
from suites.workers.pool import WorkerPool
from suites.workers.process import ROOT, LocalSpawner

TIMEOUT_SECONDS = 60.0
SAMPLES_PER_TURN = 2
"""Samples of the bare loop per turn; a visit to a case of some ms has as many."""


class Overhead(NamedTuple):
    """Seconds per call of bare loop and probe, and their ratio with a 95 % interval."""

    bare: float
    ours: float
    ratio: float
    low: float
    high: float


def measure_overhead(ranks: int, message_bytes: int, blocks: int) -> Overhead:
    """Time `blocks` ABBA blocks of bare loop and probe; an interval needs two blocks.

    Raises:
        UserError: the case cannot run here.
    """
    plan = plan_ranks(ranks, "cpu")
    if plan.launched_rank:
        raise UserError("overhead starts its own ranks; run it without a launcher")
    how = CollectiveRunConfig("bf16", "eager", 0.0, "gloo")
    entry = plan_collective_case("overhead", plan, ALL_REDUCE, "overhead", how, None, message_bytes=message_bytes)
    if entry.not_run:
        raise UserError(entry.not_run)
    environment = rank_environment(plan)
    bare, ours = [], []
    with closing(WorkerPool(LocalSpawner(ranks, environment), "cpu", TIMEOUT_SECONDS)) as crew:
        bench = CollectiveBench(crew, plan, 2**62, [entry])
        with _start_bare_loop(ranks, message_bytes, environment) as loop:
            _visit_case(bench, entry)
            for _ in range(blocks):  # same calls per sample and samples on both sides: means have longer tails
                count = entry.calls
                first = [loop(count) for _ in range(SAMPLES_PER_TURN)]
                middle = [*_visit_case(bench, entry), *_visit_case(bench, entry)]
                bare.append((*first, *(loop(count) for _ in range(SAMPLES_PER_TURN))))
                ours.append(tuple(middle))
    low, high = statistics.ratio_interval(bare, ours) or (0.0, float("inf"))
    medians = statistics.pooled_median(bare), statistics.pooled_median(ours)
    return Overhead(*medians, medians[1] / medians[0], low, high)


def _visit_case(bench: CollectiveBench, entry: CollectiveCaseState) -> tuple[float, ...]:
    samples = bench.visit(entry, 1.0)
    if entry.failed or not samples:
        raise UserError(f"overhead: {entry.failed or 'no samples'}")
    return samples


@contextmanager
def _start_bare_loop(ranks: int, message_bytes: int, environment: dict[str, str]) -> Iterator["BareLoop"]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "suites.workers.bare", *map(str, (rank, ranks, port, message_bytes))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        for rank in range(ranks)
    ]
    try:
        yield BareLoop(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


class BareLoop:
    """Processes of the bare loop; a call gives rank 0's seconds per all-reduce."""

    def __init__(self, processes: list["subprocess.Popen[str]"]) -> None:
        self._processes = processes

    def __call__(self, count: int) -> float:
        """Run `count` all-reduces on all ranks."""
        for process in self._processes:
            if process.stdin:
                print(count, file=process.stdin, flush=True)
        answers = [process.stdout.readline() if process.stdout else "" for process in self._processes]
        if not all(answers):
            raise UserError("overhead: the bare loop ended; gloo's message is above")
        return float(answers[0])
