"""A whole decoder on one GPU: its logits against float64, by torch's kernels and by ours, and its times in order."""

import pytest
import torch

from specs.parallel import Deployment
from suites.decoder.reference import rtol
from tests.suites.decoder.crews import build, crew, errors

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, torch sees none")

ALONE = Deployment()
SHAPE = {"model": "llama-3-8b", "layers": 2, "dtype": "bf16", "backend": "nccl"}


@pytest.fixture(scope="module")
def one():
    with crew(1, kind="cuda") as made:
        yield made


@pytest.mark.parametrize("implementation", ["torch", "triton"])
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_decode_gives_the_logits_of_the_reference(one, batch, implementation):
    build(one, ALONE, batch=batch, context=300, implementation=implementation, **SHAPE)
    (error,) = errors(one)
    assert 0 < error < rtol("bf16", 2)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_prefill_gives_the_logits_of_the_reference(one, implementation):
    build(one, ALONE, batch=2, length=256, implementation=implementation, **SHAPE)
    (error,) = errors(one)
    assert 0 < error < rtol("bf16", 2)


def test_segments_follow_one_another_on_the_device(one):
    build(one, ALONE, batch=16, context=300, **SHAPE)
    (reply,) = one.ask("walk", {"steps": 3}, "walking")
    trace = reply["trace"]
    assert reply["clock"] == "cuda_event"
    assert {"linears", "attention", "norms"} < set(trace["kind"])
    ends = [0.0, *trace["end"][:-1]]
    late = 1e-6  # the events' own resolution
    assert all(
        before <= start + late <= end + 2 * late
        for before, start, end in zip(ends, trace["start"], trace["end"], strict=True)
    )
