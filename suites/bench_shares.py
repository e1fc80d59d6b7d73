"""What does a rank's share of a layer, and of the LM head, take: alone, and while the other ranks compute theirs?"""

import pytest

from specs.layer import SHARES_QUESTION
from suites.case import StepRunConfig
from suites.collect import Measure
from suites.probes.share import Share, add_shares


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench function below its axes."""
    add_shares(metafunc)


def bench_share(measure: Measure, share: Share, how: StepRunConfig) -> None:
    measure(share, SHARES_QUESTION, how)
