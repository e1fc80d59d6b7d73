"""All-reduces behind a linear as a user starts them: two ranks of this CPU, one late, and one lost."""

import re

import pytest

from reports.results import load
from specs.measurement import WAITED_SHARE
from tests.suites.workers.conftest import starting
from tests.suites.workers.runs import LIMIT, fault

SUITE = "suites/bench_late_ranks.py"
MODEL = ("--model=tiny", "--tp=2")
LATE_SECONDS = 0.05
"""Far beyond what a busy machine delays the other rank."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run of both linears at one token count, with and without a late rank."""
    with starting(tmp_path_factory.mktemp("late")) as start:
        options = ("--tokens=4", f"--late=0,{LATE_SECONDS * 1e3:g}", "--passes=2", "--rank-timeout=60")
        run = start(*MODEL, *options, suite=SUITE).wait()
    assert run.status == 0, run.output
    return {(one.case.layer, one.case.late_seconds): one for one in load(run.json).measurements}


def test_both_linears_are_measured_and_the_ranks_results_are_right(measured):
    assert set(measured) == {(layer, late) for layer in ("o", "down") for late in (0.0, LATE_SECONDS)}
    for one in measured.values():
        assert 0 < one.relative_error < 1e-2
        assert one.case.message_bytes == 4 * 256 * 2
        assert (one.clock, one.transport, len(one.seconds)) == ("perf_counter", "loopback", 2)
        assert one.copies > 1


def test_the_others_wait_for_the_rank_that_is_late(measured):
    """They cannot pass an all-reduce that it has not entered."""
    for layer in ("o", "down"):
        late = measured[layer, LATE_SECONDS]
        assert late.median > LATE_SECONDS / 2
        assert late.skew_seconds > LATE_SECONDS / 2
        assert late.telemetry[WAITED_SHARE] > 0.5
        assert WAITED_SHARE not in (measured[layer, 0.0].telemetry or {})


REASONS = {"check": "checking", "draw": "setting up", "sample_behind_linear": "timing"}


@pytest.fixture(scope="module")
def lost(tmp_path_factory):
    """A run in which a rank is killed at three of four messages, each time at another command."""
    planted = [fault(1, "kill", when, tokens * 256 * 2 / 1024) for tokens, when in zip((2, 4, 8), REASONS, strict=True)]
    with starting(tmp_path_factory.mktemp("lost")) as start:
        options = ("--layer=o", "--tokens=2,16,4,8", "--late=0", "--rank-timeout=60")
        run = start(*MODEL, *options, suite=SUITE, planted=planted)
        run.process.wait(2 * LIMIT)
        yield run


def test_a_lost_rank_ends_its_case_with_a_line_that_names_it_and_the_others_are_measured(lost):
    failed = {re.search(r"-o-(\d+)tok-", one["case"])[1]: one["reason"] for one in lost.result["shardbench"]["failed"]}
    assert set(failed) == {"2", "4", "8"}
    for tokens, doing in zip(failed, REASONS.values(), strict=True):
        told = rf"rank 1 was killed by SIGKILL \(.*\) while {doing} all_reduce gloo of tiny-tp2-o-{tokens}tok"
        assert re.fullmatch(told, failed[tokens])
    assert [one["extra_info"]["tokens"] for one in lost.result["benchmarks"]] == [16]
    assert lost.status == 1
    assert lost.leaves_nothing(), lost.left()
