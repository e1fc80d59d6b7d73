"""The program that ncu watches where one case is enough."""

import sys

from suites.gate.cases import PROFILED
from suites.gate.profiled_calls import main

if __name__ == "__main__":
    sys.exit(main(PROFILED[:1]))
