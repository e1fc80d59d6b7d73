"""Entry of `python -m suites.gate`, which starts on a bare interpreter.

There it can say what is missing.
"""

import sys

from suites.gate.command import main

if __name__ == "__main__":
    sys.exit(main())
