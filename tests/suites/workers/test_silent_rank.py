"""A rank never comes, or does not answer any more: it is given up after --rank-timeout."""

import re

import pytest

from tests.suites.workers.runs import AFTER, BEFORE, MARGIN, STRUCK, TIMEOUT, fault

STOPPED, HANGS = 2, 4
REASONS = {
    STOPPED: f"rank 1 stopped answering while checking all_reduce gloo 2 KiB; given up after {TIMEOUT} s",
    HANGS: rf"ranks 0, 1 did not finish checking all_reduce gloo 4 KiB within {TIMEOUT} s "
    r"\(rank 0 is in all_reduce; rank 1 is in loop\)",
}
GOOD = (1, 3, 5)


@pytest.fixture(scope="module")
def run(start_shared):
    """One run in which a rank is stopped in a collective, and later another hangs in its own code."""
    planted = [fault(1, "stop", "in", STOPPED), fault(1, "loop", "check", HANGS)]
    return start_shared(planted=planted, kib=sorted([*GOOD, STOPPED, HANGS])).wait()


@pytest.mark.parametrize("kib", REASONS)
def test_who_does_not_answer_and_where_is_told_in_time_and_in_a_line(run, kib):
    assert re.fullmatch(REASONS[kib], run.failed[kib])
    assert run.failed[kib] in run.output.splitlines()
    assert run.seconds_to_notice(kib) < TIMEOUT + MARGIN


def test_the_other_cases_are_measured_and_no_rank_is_left(run):
    assert run.status == 1
    assert set(run.failed) == {STOPPED, HANGS}
    assert set(run.measured) == set(GOOD)
    assert run.written == run.measured
    assert len(run.ranks()) == 6
    assert run.most_at_once() == 2
    assert run.leaves_nothing(), run.left()


def test_a_rank_that_never_joins_ends_the_run_with_every_case_listed(start):
    run = start(planted=[fault(1, "sleep", "join", kib=None)]).wait()
    assert run.status == 1
    assert run.seconds_to_notice(None) < TIMEOUT + MARGIN
    assert set(run.failed) == {BEFORE, STRUCK, AFTER}
    assert run.failed[BEFORE].startswith(f"ranks 0, 1 did not finish joining the others within {TIMEOUT} s")
    assert all(run.failed[kib].startswith("not reached: ranks 0, 1 did not finish") for kib in (STRUCK, AFTER))
    assert all(reason in run.output.splitlines() for reason in run.failed.values())
    assert not run.json.exists()
    assert "nothing was measured, so no JSON is written" in run.output
    assert len(run.ranks()) == 2
    assert run.leaves_nothing(), run.left()
