"""Runs that are over when their tests are, whatever came of them."""

from contextlib import contextmanager

import pytest

from tests.suites.workers.runs import PytestRun


@contextmanager
def starting(folder):
    runs = []

    def begin(*options, **more):
        runs.append(PytestRun(folder, *options, **more))
        return runs[-1]

    try:
        yield begin
    finally:
        for run in runs:
            run.end()


@pytest.fixture
def start(tmp_path):
    """Starts a run in the test's folder."""
    with starting(tmp_path) as begin:
        yield begin


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory):
    """Starts the run that the tests of a file share."""
    with starting(tmp_path_factory.mktemp("run")) as begin:
        yield begin
