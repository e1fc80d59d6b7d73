"""What does an all-reduce cost behind each rank's own linear, and when one rank comes late?"""

import pytest

from kernels.timing.device import current_device
from suites.case import CollectiveRunConfig
from suites.collect import Measure
from suites.probes.late_ranks import QUESTION, InStepAllReduce, add_in_step_all_reduces


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench function below its axes."""
    add_in_step_all_reduces(metafunc, current_device().kind)


def bench_behind_linear(measure: Measure, part: InStepAllReduce, how: CollectiveRunConfig) -> None:
    measure(part, QUESTION, how)
