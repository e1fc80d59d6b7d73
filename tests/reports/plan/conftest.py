"""Planted systems, loaded."""

import pytest

from reports import results
from reports.plan.profile import gather
from reports.plan.query import Asked
from reports.plan.step import Parts, Variant
from tests.reports.plan import planted_parts


@pytest.fixture
def parts(tmp_path):
    """Parts of the planted H200, elementwise kernels left out unless asked for."""

    def made(measurements=None, *, elementwise=False, implementation="vllm", **asked):
        path = planted_parts.write(tmp_path / "planted.json", measurements)
        question = Asked(**{"model": "llama-3-70b", "gpus": 8, "context": 256, "batches": (64,), **asked})
        return Parts(gather([results.load(path)], "bf16"), question, Variant(implementation, elementwise))

    return made
