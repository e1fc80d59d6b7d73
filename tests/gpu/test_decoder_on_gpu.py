"""A whole decoder on one GPU: its logits against float64, by torch's kernels and by ours, and its times in order."""

import pytest
import torch

from specs.parallel import Deployment
from suites.decoder.reference import logits_rtol
from tests.suites.decoder.model_workers import build_model, logit_errors, start_workers

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, torch sees none")

ALONE = Deployment()
SHAPE = {"model": "llama-3-8b", "layers": 2, "dtype": "bf16", "backend": "nccl"}


@pytest.fixture(scope="module")
def one():
    with start_workers(1, kind="cuda") as made:
        yield made


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_decode_gives_the_logits_of_the_reference(one, batch, implementation):
    build_model(one, ALONE, batch=batch, context=300, implementation=implementation, **SHAPE)
    (error,) = logit_errors(one)
    assert 0 < error < logits_rtol("bf16", 2)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_prefill_gives_the_logits_of_the_reference(one, implementation):
    build_model(one, ALONE, batch=2, length=256, implementation=implementation, **SHAPE)
    (error,) = logit_errors(one)
    assert 0 < error < logits_rtol("bf16", 2)


def test_segments_follow_one_another_on_the_device(one):
    build_model(one, ALONE, batch=16, context=300, **SHAPE)
    (reply,) = one.run_command("walk", {"steps": 3}, "walking")
    trace = reply["trace"]
    assert reply["clock"] == "cuda_event"
    assert {"linears", "attention", "norms"} < set(trace["kind"])
    ends = [0.0, *trace["end"][:-1]]
    late = 1e-6  # the events' own resolution
    assert all(
        before <= start + late <= end + 2 * late
        for before, start, end in zip(ends, trace["start"], trace["end"], strict=True)
    )
