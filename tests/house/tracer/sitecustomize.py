"""Tracer of product files, which Python imports at start-up when this folder is on its path.

`tests/house/journeys.py` defines which calls count. The environment names the tree, the folder for notes and the first
process. Each process has a file of notes and writes a line as soon as it enters a file: workers end with `os._exit`.
"""

import os
import sys
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType

TREE = "SHARDBENCH_JOURNEY_TREE"
NOTES = "SHARDBENCH_JOURNEY_NOTES"
FIRST = "SHARDBENCH_JOURNEY_PROCESS"
FLOORS = ("specs", "kernels", "comm", "suites", "reports")


def below_import(frame: FrameType | None) -> bool:
    """True while the body of a module runs, apart from the program itself."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            return True
        frame = frame.f_back
    return False


class Tracer:
    """Profile function that notes each product file once for calls and once for imports."""

    def __init__(self, tree: str, notes: Path) -> None:
        self._tree = tree + os.sep
        self._floors = tuple(f"{tree}{os.sep}{floor}{os.sep}" for floor in FLOORS)
        self._notes = os.open(notes, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._seen: set[tuple[str, str]] = set()
        self._began = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Note the file of a call; the bodies of modules and classes are no calls."""
        code = frame.f_code
        if event == "call" and code.co_flags & CO_OPTIMIZED and code.co_filename.startswith(self._floors):
            name = code.co_filename.removeprefix(self._tree)
            if ("call", name) not in self._seen:
                self._note("import" if below_import(frame) else "call", name)

    def _note(self, when: str, name: str) -> None:
        self._began = self._began or when == "call"
        if self._began and (when, name) not in self._seen:
            self._seen.add((when, name))
            os.write(self._notes, f"{when} {name}\n".encode())


if TREE in os.environ:
    first = os.environ.setdefault(FIRST, str(os.getpid())) == str(os.getpid())
    kind = "first" if first else "worker"
    tracer = Tracer(os.environ[TREE], Path(os.environ[NOTES]) / f"{kind}-{os.getpid()}")
    threading.setprofile(tracer)
    sys.setprofile(tracer)
