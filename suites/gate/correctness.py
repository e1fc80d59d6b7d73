"""The step that all others stand on: every kernel against its reference."""

from suites.gate.arrival import ARRIVAL
from suites.gate.by_counts import QUIET, by_counts
from suites.gate.step import PYTEST, Step

STEP = Step(
    name="correctness",
    purpose="every kernel against its float64 reference, at the shards of Llama-3-70B and at odd sizes",
    seconds=120,
    least_seconds=20,
    kept_seconds=60,
    command=lambda place, _: [place.python, "-m", "pytest", "tests/gpu", f"--ignore={ARRIVAL}", *QUIET],
    packages=PYTEST,
    judge=by_counts,
)
