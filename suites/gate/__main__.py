"""`python -m suites.gate`: the gate on a bare interpreter, where it can at least say what is missing."""

import sys

from suites.gate.command import main

if __name__ == "__main__":
    sys.exit(main())
