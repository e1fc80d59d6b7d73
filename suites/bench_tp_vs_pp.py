"""Tensor parallel or pipeline parallel? A whole model on all ranks, decode and prefill, each way to lay it out."""

import pytest

from specs.measurement import STEP_QUESTION
from specs.parallel import Deployment
from suites.case import StepRunConfig
from suites.collect import Measure
from suites.decoder.workload import StepWorkload
from suites.probes.model import add_steps


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the bench functions below their axes."""
    add_steps(metafunc, decode=metafunc.function is bench_decode_step)


def bench_decode_step(measure: Measure, deployment: Deployment, part: StepWorkload, how: StepRunConfig) -> None:
    measure(deployment, STEP_QUESTION, how, part)


def bench_prefill_step(measure: Measure, deployment: Deployment, part: StepWorkload, how: StepRunConfig) -> None:
    measure(deployment, STEP_QUESTION, how, part)
