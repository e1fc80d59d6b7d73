"""What every test shares: our own warnings are errors, and workers beside each other do not fight for the cores.

A warning is ours where our code raises it or calls what raises it; those inside of Triton, torch or pytest are theirs.
Not so in the suites, where a warning must not cost a measurement, nor in tests/gpu, which runs with whatever
versions the machine with the GPU has.
"""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ERRORS = (
    r"error:::(specs|kernels|comm|suites|reports|tests|conftest)(\.|$)",
    # An exception that nobody could catch is told by pytest, in the name of whoever raised it.
    "error::pytest.PytestUnraisableExceptionWarning",
    "error::pytest.PytestUnhandledThreadExceptionWarning",
)


def pytest_configure(config):
    if hasattr(config, "workerinput"):
        import torch

        torch.set_num_threads(1)  # each of several workers would take all cores, and then wait for the others
        for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
            del os.environ[name]  # runs that a test starts are no worker's; pytest-benchmark would leave them no JSON
        os.environ.pop("COLUMNS", None)  # the width of the terminal that the workers report to, if there is one


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE) and not item.path.is_relative_to(HERE / "gpu"):
            item.add_marker(pytest.mark.filterwarnings(*ERRORS), append=False)
