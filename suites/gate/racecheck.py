"""No race in shared memory: compute-sanitizer's racecheck over every kernel of ours."""

import sys

from suites.gate.sanitizer import main_of
from suites.gate.step import TORCH, Step

STEP = Step(
    name="racecheck",
    purpose="compute-sanitizer racecheck for shared memory over our kernels, and over a planted race",
    seconds=150,
    least_seconds=45,
    command=lambda place, _: place.module("racecheck"),
    packages=(*TORCH, "cupy"),
    tools=("compute-sanitizer",),
)

if __name__ == "__main__":
    sys.exit(main_of("racecheck", "race", __doc__, None))
