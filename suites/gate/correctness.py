"""The step that all others stand on: every kernel against its reference, on several workers at once."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib.util import find_spec

from suites.gate.step import PYTEST, QUIET, WIDE, Place, Step, by_counts

# The arrival protocol of split-K: the last program to arrive adds up all partials, in one fixed order.

ARRIVAL = "tests/gpu/test_arrival.py"

ARRIVAL_STEP = Step(
    name="arrival",
    purpose="split-K arrivals under random delays and NaN-poisoned partials: 1,000 runs, the same bits",
    seconds=45,
    least_seconds=15,
    command=lambda place, _: [place.python, "-m", "pytest", ARRIVAL, *QUIET],
    packages=PYTEST,
    environment=WIDE,
    judge=by_counts,
)


MOST_WORKERS = 8
WORKER_GIB = 8.0
"""GPU memory of one worker: its context, the largest operands, and their reference in float64."""


def workers(cores: int, free_gib: float | None) -> int:
    """Processes that test at the same time: as many as there are cores and GPU memory for, at most 8."""
    fit = MOST_WORKERS if free_gib is None else int(free_gib / WORKER_GIB)
    return max(1, min(MOST_WORKERS, cores, fit))


def tests(count: int) -> list[str]:
    """All of tests/gpu but arrival. With `loadgroup` xdist 3.8 can wait for ever when two workers end at a time."""
    spread = ["-n", str(count), "--dist", "worksteal"] if count > 1 else []
    return [sys.executable, "-m", "pytest", "tests/gpu", f"--ignore={ARRIVAL}", *QUIET, *spread]


def main(argv: Sequence[str] | None = None) -> None:
    """Become pytest, on as many workers as this machine has room for."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--free-gib", type=float, help="GPU memory that is free")
    asked = parser.parse_args(argv)
    count = workers(len(os.sched_getaffinity(0)), asked.free_gib)
    if count > 1 and find_spec("xdist") is None:
        count = 1
        print("one process: pytest-xdist is not installed", flush=True)  # noqa: T201 - a program's output
    command = tests(count)
    os.execv(command[0], command)  # noqa: S606 - our own tests


def command(place: Place, _: float) -> list[str]:
    """The program decides how many workers there are."""
    free = [] if place.free_gib is None else ["--free-gib", f"{place.free_gib:.1f}"]
    return [place.python, "-m", "suites.gate.correctness", *free]


CORRECTNESS_STEP = Step(
    name="correctness",
    purpose="every kernel against its float64 reference, at the shards of Llama-3-70B and at odd sizes",
    seconds=50,
    least_seconds=20,
    command=command,
    packages=PYTEST,
    optional=("xdist",),
    environment=WIDE,
    judge=by_counts,
)


if __name__ == "__main__":
    main()
