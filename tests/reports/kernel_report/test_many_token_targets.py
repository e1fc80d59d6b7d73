"""The GEMM's targets, from planted times: 16 shapes at 128 and 256 tokens, and at 512, 2048 and 8192."""

from functools import partial
from itertools import product

import pytest

from reports import output
from reports.kernel_report import points
from reports.kernel_report.points import OURS
from reports.kernel_report.report import file_blocks, selection_record
from tests.reports.kernel_report.planted_kernels import LINEARS, one_point, selection


@pytest.fixture
def selected(tmp_path):
    return partial(selection, tmp_path)


def planted(times, tokens=(*points.BATCH_TOKENS, *points.PROMPT_TOKENS)):
    """Every shape at every count; a prompt is measured by the prefill suite."""
    return [
        one
        for shard, count in product(LINEARS, tokens)
        for one in one_point(times(shard, count), shard=shard, tokens=count, question=question(count))
    ]


def question(count):
    return "prefill" if count > 256 else "decode"


def verdicts(chosen):
    return [(one.met, one.figure) for one in points.judge_many_tokens(chosen.points, OURS)]


def libraries(seconds):
    return {"torch": seconds, "cublaslt": 1.5 * seconds}


def test_targets_that_are_met(selected):
    """Batches 11.2 / 10, prompts 9.6 / 10. Shapes of at most 5120 rows: qkv at TP 2, 4 and 8."""
    chosen = selected(planted(lambda shard, count: libraries(11.2e-6 if count <= 256 else 9.6e-6) | {"triton": 10e-6}))
    approx = pytest.approx
    assert verdicts(chosen) == [(True, approx(1.12)), (True, approx(1.12)), (True, approx(0.96)), (True, approx(0.96))]
    assert [(one.points, one.expected_points) for one in points.judge_many_tokens(chosen.points, OURS)] == [
        *((32, 32), (6, 6), (48, 48), (48, 48))
    ]


def test_targets_that_are_missed(selected):
    """Batches 10.3 / 10; prompts 9.4 / 10, and 8.9 / 10 for down at TP 1."""

    def times(shard, count):
        slow = shard.layer == "down" and shard.tp == 1
        return libraries(10.3e-6 if count <= 256 else 8.9e-6 if slow else 9.4e-6) | {"triton": 10e-6}

    chosen, approx = selected(planted(times)), pytest.approx
    mean = 0.89 ** (3 / 48) * 0.94 ** (45 / 48)
    assert verdicts(chosen) == [
        (False, approx(1.03)),
        (False, approx(1.03)),
        (False, approx(0.89)),
        (False, approx(mean)),
    ]
    assert points.judge_many_tokens(chosen.points, OURS)[2].remark == "least at down tp1 M 512"


def test_only_narrow_shards_count_for_the_narrow_target(selected):
    def times(shard, count):
        return libraries(12e-6 if shard.n <= 5120 else 10e-6) | {"triton": 10e-6}

    found = verdicts(selected(planted(times, points.BATCH_TOKENS)))
    # 6 of 32 points: 1.2 ^ (6 / 32) = 1.035
    assert found[:2] == [(False, pytest.approx(1.2 ** (6 / 32))), (True, pytest.approx(1.2))]
    assert found[2:] == [(None, None)] * 2


def test_what_is_missing_keeps_a_target_open(selected):
    times = libraries(20e-6) | {"triton": 10e-6}
    chosen = selected(planted(lambda *_: times, (128,)))
    assert [met for met, _ in verdicts(chosen)] == [None] * 4
    assert points.judge_many_tokens(chosen.points, OURS)[0].remark == "16 missing"


def test_the_targets_stand_in_the_report_and_in_the_record(selected):
    times = libraries(11.2e-6) | {"triton": 10e-6}
    chosen = selected(planted(lambda *_: times))
    told = output.render_terminal(file_blocks(chosen), width=110)
    assert "targets from 128 tokens on" in told
    assert "M 128, 256, n ≤ 5120: geometric mean ≥ 1.10x" in told
    assert [one["met"] for one in selection_record(chosen)["targets"]][-4:] == [True] * 4
    assert {point["tokens"] for point in selection_record(chosen)["points"]} == {128, 256, 512, 2048, 8192}
