"""One try, with the kernel under the interpreter and a clock that tells what was planted."""

from math import inf, nan

import pytest
import torch

from kernels import gemm, skinny
from kernels.configs.config import LinearConfig
from kernels.timing.device import SAMPLING_LIMITS, Device
from kernels.tuning import search
from kernels.tuning.search import DeviceLostError, TrialRunner
from kernels.tuning.shapes import LinearShape
from tests.kernels.interpreter import interpreted, needs_interpreter
from tests.kernels.tuning.quick_timer import Timer

STREAM = LinearConfig(2, 2, 512, 1, 4, 1, matrix=False)
SPLIT = STREAM._replace(split=2)
SHAPE = LinearShape("fp32", 2, 4, 1024)
WEIGHT_BYTES = 4 * 1024 * 4
LLC_BYTES = 2048
COPIES = 4  # 32 x 2048 bytes / 16 KiB


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(search, "CudaTimer", Timer)
    return TrialRunner(Device("cpu", "cpu", LLC_BYTES, SAMPLING_LIMITS["cpu"]), "fp32", WEIGHT_BYTES)


LAUNCH = skinny.launch


def plant(monkeypatch, launch):
    """Have calls of the skinny linear end in `launch`."""
    monkeypatch.setattr(skinny, "launch", launch)


def tried(bench, config):
    with interpreted(skinny):
        return bench.seconds(SHAPE, config)


@needs_interpreter
@pytest.mark.parametrize("config", [STREAM, SPLIT, LinearConfig(64, 16, 32, 3, 4, 3)], ids=str)
def test_a_right_configuration_has_the_mean_of_its_samples(bench, config):
    assert tried(bench, config) == pytest.approx(3e-6)  # (1 + 2 + 6) / 3
    assert bench.problem == ""


@needs_interpreter
@pytest.mark.parametrize("split", [1, 2])
def test_beyond_64_tokens_the_gemm_is_tried(bench, split):
    with interpreted(gemm, gemm):
        assert bench.seconds(SHAPE._replace(tokens=70), LinearConfig(64, 64, 32, split, 4, 3)) == pytest.approx(3e-6)


@needs_interpreter
def test_calls_rotate_through_weights_that_no_cache_holds(bench, monkeypatch):
    seen = []
    plant(monkeypatch, lambda **call: seen.append(call) or LAUNCH(**call))
    tried(bench, STREAM)
    timed = seen[1:]  # the first is the one that is checked
    assert len({call["weight"].data_ptr() for call in timed}) == len(timed) == COPIES
    assert len({call["x"].data_ptr() for call in timed}) == 1


def wrong(**call):
    LAUNCH(**call)
    call["out"] *= 1.01


def unwritten(**call):
    LAUNCH(**call)
    call["out"][-1, -1] = nan


def refuses(**call):
    raise ValueError("shared memory 300000, limit 232448\nand a long trace")


@needs_interpreter
@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (wrong, "wrong result: relative error 0.01"),
        (unwritten, "wrong result: relative error nan"),
        (refuses, "ValueError: shared memory 300000, limit 232448"),
    ],
)
def test_a_wrong_configuration_has_no_time_and_says_why(bench, monkeypatch, fault, problem):
    plant(monkeypatch, fault)
    assert tried(bench, STREAM) == inf
    assert bench.problem == problem


@needs_interpreter
def test_a_problem_is_that_of_the_last_try(bench, monkeypatch):
    with monkeypatch.context() as planted:
        plant(planted, refuses)
        tried(bench, STREAM)
    assert tried(bench, STREAM) < inf
    assert bench.problem == ""


@needs_interpreter
def test_a_timer_that_fails_makes_no_time_up(bench, monkeypatch):
    def sample(self, share):
        raise RuntimeError("8 calls took no longer than 4")

    monkeypatch.setattr(Timer, "sample", sample)
    assert tried(bench, STREAM) == inf
    assert bench.problem == "RuntimeError: 8 calls took no longer than 4"
    assert not bench.is_permanent, "the next time it may not"


def test_more_tokens_than_a_configuration_holds_are_a_problem_of_it(bench):
    assert bench.seconds(SHAPE._replace(tokens=3), STREAM) == inf
    assert "3 tokens" in bench.problem
    assert bench.is_permanent


def test_an_exception_without_words_is_a_problem_like_any_other(bench, monkeypatch):
    def asserts(**call):
        raise AssertionError

    plant(monkeypatch, asserts)
    assert bench.seconds(SHAPE, STREAM) == inf
    assert "AssertionError" in bench.problem


def test_a_gpu_that_is_lost_ends_the_search(bench, monkeypatch):
    plant(monkeypatch, refuses)
    monkeypatch.setattr(Device, "lost", lambda self: "the GPU is lost to this process (unspecified launch failure)")
    with pytest.raises(DeviceLostError, match=r"the GPU is lost .* after multiply-add 2x2x512 w4 s1"):
        bench.seconds(SHAPE, STREAM)


def test_partial_sums_are_poisoned_and_counters_are_zero_whatever_was_there_before(bench, monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **of: empty(*shape, **of).fill_(7))  # what memory may hold
    seen = []

    def looks(config, scratch, **call):
        partials, arrived = scratch.next_buffers(config.partial_elements(4), 2)
        seen.append(bool(partials.isnan().all()) and not arrived.any() and partials.numel() > 0)

    plant(monkeypatch, looks)
    bench.seconds(SHAPE, SPLIT)
    assert seen[0]


@needs_interpreter
def test_a_right_configuration_is_right_after_a_faulty_one(bench, monkeypatch):
    def leaves_counters_behind(scratch, **call):
        LAUNCH(scratch=scratch, **call)
        scratch.arrived.fill_(1)
        call["out"].fill_(nan)

    with monkeypatch.context() as planted:
        plant(planted, leaves_counters_behind)
        assert tried(bench, SPLIT) == inf
    assert tried(bench, SPLIT) < inf
