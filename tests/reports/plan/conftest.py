"""Planted systems, loaded."""

import pytest

from reports import results
from reports.plan.profile import build_profile
from reports.plan.query import PlanQuery
from reports.plan.step import PartCosts, Variant
from tests.reports.plan import planted_parts


@pytest.fixture
def parts(tmp_path):
    """Parts of the planted H200, elementwise kernels left out unless asked for."""

    def made(measurements=None, *, elementwise=False, implementation="vllm", **asked):
        path = planted_parts.write(tmp_path / "planted.json", measurements)
        question = PlanQuery(**{"model": "llama-3-70b", "gpus": 8, "context": 256, "batches": (64,), **asked})
        return PartCosts(build_profile([results.load(path)], "bf16"), question, Variant(implementation, elementwise))

    return made
