"""The run itself is ended: what was measured is in the journal, it can be gone on with, and no rank stays."""

import signal

import pytest

from tests.suites.workers.runs import AFTER, BEFORE, MARGIN, STRUCK, TIMEOUT, fault

PAUSE = [fault(1, "pause", "sample")]


def test_ctrl_c_keeps_what_was_measured_and_the_run_goes_on_later(start):
    run = start(planted=PAUSE)
    run.until_struck()
    run.process.send_signal(signal.SIGINT)
    run.wait(TIMEOUT + MARGIN)
    assert run.status == 2, run.output
    assert f"interrupted: what was measured is in {run.journal_path}; go on with --resume" in run.output
    before = run.measured
    assert set(before) == {BEFORE}
    assert not run.json.exists()
    assert len(run.ranks()) == 2
    assert run.leaves_nothing()

    again = start("--resume").wait()
    assert again.status == 0, again.output
    assert f"resumed: 1 cases have samples in {run.journal_path}" in again.output
    assert set(again.written) == {BEFORE, STRUCK, AFTER}
    assert again.written[BEFORE] == before[BEFORE]
    assert again.leaves_nothing()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_rank_outlives_a_run_that_is_killed(start, how):
    run = start(planted=PAUSE)
    run.until_struck()
    run.process.send_signal(how)
    run.wait(TIMEOUT + MARGIN)
    assert run.status == -how
    assert len(run.ranks()) == 2
    run.leaves_nothing()
    assert run.left() == []
    assert set(run.measured) == {BEFORE}
