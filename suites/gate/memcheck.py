"""No access out of bounds: compute-sanitizer's memcheck over every kernel of ours at sizes with ragged edges."""

import sys

from suites.gate.sanitizer import main_of
from suites.gate.step import Step

STEP = Step(
    name="memcheck",
    purpose="compute-sanitizer memcheck over our kernels, and over a planted access out of bounds",
    seconds=150,
    least_seconds=45,
    command=lambda place, _: place.module("memcheck"),
    tools=("compute-sanitizer",),
)

if __name__ == "__main__":
    sys.exit(main_of("memcheck", "out_of_bounds", __doc__, None))
