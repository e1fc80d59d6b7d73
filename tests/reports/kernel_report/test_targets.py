from functools import partial
from itertools import product

import pytest

from reports import output
from reports.kernel_report import points
from reports.kernel_report.points import OURS, OURS_DEPENDENT
from reports.kernel_report.report import file_blocks, selection_record
from specs.models import find_model
from specs.parallel import Split
from tests.reports import planted
from tests.reports.kernel_report.planted_kernels import LINEARS, O_TP8, all_points, one_point, selection


@pytest.fixture
def selected(tmp_path):
    return partial(selection, tmp_path)


def verdicts(selection, ours=OURS):
    return [(one.met, one.figure) for one in points.judge_targets(selection.points, ours)]


def test_targets_that_are_met(selected):
    """Libraries 12 us, ours 10: 1.2 everywhere. The line: 2.2 us + 8,160,000 / (0.96 · 1e12) = 10.7 us."""
    times = {"torch": 12e-6, "cublaslt": 12e-6, "triton": 10e-6, "cuda": 11e-6}
    chosen = selected([*all_points(lambda *_: times, hbm_bytes=8_160_000), *planted.ceilings(read=1e12)])
    assert verdicts(chosen) == [(True, pytest.approx(1.2))] * 4 + [(True, 1.0)]
    assert [(one.points, one.expected_points) for one in points.judge_targets(chosen.points, OURS)] == [
        *((80, 80), (80, 80), (20, 20), (20, 20), (80, 80))
    ]
    assert verdicts(chosen, OURS_DEPENDENT) == [(None, None)] * 5


def test_targets_that_are_missed(selected):
    """O at TP8: 12 / 12.5 = 0.96. Elsewhere 12 / 11.5 = 1.0435; all are over the line of 2.2 us + 8.5 us = 10.7 us."""

    def times(shard, tokens):
        return {"torch": 12e-6, "cublaslt": 13e-6, "cuda": 12.5e-6 if shard == O_TP8 else 11.5e-6}

    chosen = selected([*all_points(times, hbm_bytes=8_160_000), *planted.ceilings(read=1e12)])
    mean = 0.96 ** (5 / 80) * (12 / 11.5) ** (75 / 80)
    small = 0.96 ** (5 / 20) * (12 / 11.5) ** (15 / 20)
    approx = pytest.approx
    assert verdicts(chosen) == [
        *((False, approx(0.96)), (False, approx(mean)), (False, approx(0.96)), (False, approx(small)), (False, 0.0))
    ]
    assert points.judge_targets(chosen.points, OURS)[0].remark == "least at o tp8 M 1"


def test_the_narrow_shapes_are_qkv_and_o_at_tp_4_and_8(selected):
    """12 / 10 there and 12 / 12 elsewhere: only the two targets of these twenty points are met, with 1.2."""

    def times(shard, tokens):
        narrow = shard.layer in ("qkv", "o") and shard.tp in (4, 8)
        return {"torch": 12e-6, "cublaslt": 12e-6, "cuda": 10e-6 if narrow else 12e-6}

    found = verdicts(selected(all_points(times)))[:4]
    assert [met for met, _ in found] == [True, False, True, True]
    assert [figure for _, figure in found] == [pytest.approx(value) for value in (1.0, 1.2**0.25, 1.2, 1.2)]


def test_each_side_of_dependent_launch_is_judged_by_itself(selected):
    times = {"torch": 12e-6, "cublaslt": 12e-6, "triton": 12e-6, "triton_pdl": 10e-6}
    chosen = selected(all_points(lambda *_: times))
    assert [met for met, _ in verdicts(chosen)] == [True, False, False, False, None]
    assert [met for met, _ in verdicts(chosen, OURS_DEPENDENT)] == [True, True, True, True, None]
    assert [one["dependent_launch"] for one in selection_record(chosen)["targets"]] == [
        *(False,) * 5,
        *(True,) * 5,
        *(False,) * 4,
    ]
    assert "targets  with dependent launch: triton-pdl\n" in output.render_terminal(file_blocks(chosen), width=100)


@pytest.mark.parametrize(("slow", "met"), [(8, True), (9, False)])
def test_nine_in_ten_points_on_the_line(selected, slow, met):
    """8 of 80 may be over it."""
    numbers = {(shard, tokens): i for i, (shard, tokens) in enumerate(product(LINEARS, points.DECODE_TOKENS))}

    def times(shard, tokens):
        return {"cuda": 11e-6 if numbers[shard, tokens] < slow else 10e-6}

    chosen = selected([*all_points(times, hbm_bytes=8_160_000), *planted.ceilings(read=1e12)])
    assert verdicts(chosen)[4] == (met, pytest.approx(1 - slow / 80))


def test_without_a_read_ceiling_there_is_no_line(selected):
    chosen = selected(all_points(lambda *_: {"cuda": 1e-6}))
    last = points.judge_targets(chosen.points, OURS)[4]
    assert (last.met, last.figure) == (None, None)
    assert last.remark == "no read ceiling in this file: run suites/bench_ceilings.py too"


def test_a_part_of_the_points_can_miss_a_target_but_not_meet_it(selected):
    def few(shard, tokens):
        return shard == O_TP8

    good = {"torch": 12e-6, "cublaslt": 12e-6, "cuda": 10e-6}
    chosen = selected([*all_points(lambda *_: good, few, hbm_bytes=8_160_000), *planted.ceilings(read=1e12)])
    assert verdicts(chosen) == [(None, pytest.approx(1.2))] * 4 + [(None, 1.0)]
    first = points.judge_targets(chosen.points, OURS)[0]
    assert (first.points, first.expected_points, first.remark) == (5, 80, "least at o tp8 M 1; 75 missing")
    bad = good | {"cuda": 13e-6}
    chosen = selected([*all_points(lambda *_: bad, few, hbm_bytes=8_160_000), *planted.ceilings(read=1e12)])
    assert [met for met, _ in verdicts(chosen)] == [False, None, False, None, None]


def test_with_one_library_alone_no_ratio_is_met(selected):
    chosen = selected(all_points(lambda *_: {"torch": 12e-6, "cuda": 10e-6}))
    assert [met for met, _ in verdicts(chosen)[:4]] == [None] * 4
    assert points.judge_targets(chosen.points, OURS)[1].remark == "no cublaslt at 80"
    chosen = selected(all_points(lambda *_: {"torch": 12e-6, "cuda": 13e-6}))
    assert [met for met, _ in verdicts(chosen)[:4]] == [False] * 4


def test_other_tokens_and_the_lm_head_are_no_points_of_the_targets(selected):
    head = Split(find_model("llama-3-70b"), 8).linear("lm_head")
    seconds = {"torch": 1.0, "cuda": 2.0}
    chosen = selected([*one_point(seconds, tokens=4), *one_point(seconds, shard=head)])
    assert len(chosen.points) == 2
    assert verdicts(chosen) == [(None, None)] * 5
