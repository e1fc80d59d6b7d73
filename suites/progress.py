"""How far the run is and how long it will take, on pytest's own terminal."""

import time
from typing import Any

EVERY_SECONDS = 10.0


class ProgressLine:
    """One line rewritten on a terminal; a new one now and then where output goes to a file."""

    def __init__(self, reporter: Any, least_passes: int) -> None:
        self._reporter, self._least_passes = reporter, least_passes
        self._terminal = bool(reporter.isatty)
        self._last = time.monotonic()

    def __call__(self, index: int, visited: int, total: int, left_seconds: float) -> None:
        """Show the pass (from 0), how many of its cases are done, and an estimate of the time left."""
        passes = f"of {self._least_passes}" if index < self._least_passes else "for cases still too wide"
        text = f"pass {index + 1} {passes}, case {visited} of {total}, about {left_seconds:.0f} s left"
        if self._terminal:
            self._reporter.rewrite(text, erase=True)
        elif time.monotonic() - self._last > EVERY_SECONDS:
            self._last = time.monotonic()
            self._reporter.write_line(text)

    def done(self, text: str) -> None:
        """Replace the line by the outcome."""
        if self._terminal:
            self._reporter.rewrite("", erase=True)
        self._reporter.write_line(text)
