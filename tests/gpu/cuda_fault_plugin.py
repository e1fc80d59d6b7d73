"""A CUDA fault spoils all that follows in its process: the test that caused it is named, and the others go on.

A worker of pytest-xdist leaves what the test failed with where the main process finds it, and ends at once, in the
middle of that test; xdist starts another worker, which goes on with the next test. One process alone stops there.
"""

import os
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest

LOST_STATUS = 86
"""Exit status of a worker whose GPU context is lost."""
FOLDER = "SHARDBENCH_GPU_FAULTS"


def read_cuda_fault():
    """The CUDA error that stays, in a line; empty while the context is sound."""
    import torch  # the main process of several needs none

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return ""
    line = ""
    for _ in range(2):  # what a synchronisation reports once may be the last test's; what it reports twice stays
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            line = str(error).strip().splitlines()[0]
        else:
            return ""
    return line


class FaultReport:
    """Failure of a test, as a report holds it: pytest prints it, and its summary takes the last part as the reason."""

    def __init__(self, nodeid, line, text):
        self.reprcrash = self  # pytest asks it for `message`
        self.message, self.path, self.lineno, self._nodeid, self._text = line, nodeid, 0, nodeid, text

    def toterminal(self, writer):
        writer.line(str(self))

    def __str__(self):
        return f"{self._text}\n{self.message}; its worker has ended, and another goes on"


def _fault_file(nodeid):
    return Path(os.environ[FOLDER], sha256(nodeid.encode()).hexdigest())


def pytest_configure(config):
    if not hasattr(config, "workerinput") and FOLDER not in os.environ:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="gpu-faults-")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if (report.when != "setup" or report.failed) and (line := read_cuda_fault()):
        text = str(report.longrepr or "the test itself saw nothing; the error came from what it had launched")
        if hasattr(item.config, "workerinput"):
            _fault_file(item.nodeid).write_text(f"{line}\n{text}")
            os._exit(LOST_STATUS)
        report.outcome, report.longrepr = "failed", FaultReport(item.nodeid, line, text)
        item.session.shouldstop = f"the GPU context is lost ({line}); later tests are not run in this process"
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem, report, sched):
    """Tell what the worker had seen, where it says so; any other death keeps xdist's own words."""
    if (left := _fault_file(crashitem)).exists():
        line, text = left.read_text().split("\n", 1)
        report.longrepr = FaultReport(crashitem, line, text)
