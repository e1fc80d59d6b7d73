"""The end of a command: Python looks for no cycles in the records that it is about to drop."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASKED_LAST = """
import atexit, gc, runpy, sys
atexit.register(lambda: print(f"frozen {gc.get_freeze_count() > 0}"))
sys.argv = ["reports", "--help"]
runpy.run_module("reports", run_name="__main__")
"""


def test_the_records_are_not_searched_for_cycles_at_the_end():
    ran = subprocess.run([sys.executable, "-c", ASKED_LAST], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("frozen True\n")
