"""The arrival protocol of split-K: the last program to arrive adds up all partials, in one fixed order."""

from suites.gate.by_counts import QUIET, WIDE, by_counts
from suites.gate.step import PYTEST, Step

ARRIVAL = "tests/gpu/test_arrival.py"

STEP = Step(
    name="arrival",
    purpose="split-K arrivals under random delays and NaN-poisoned partials: 1,000 runs, the same bits",
    seconds=45,
    least_seconds=15,
    command=lambda place, _: [place.python, "-m", "pytest", ARRIVAL, *QUIET],
    packages=PYTEST,
    environment=WIDE,
    judge=by_counts,
)
