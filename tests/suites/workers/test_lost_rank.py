"""A rank dies, or cannot go on: that case is told as failed, and the others are measured."""

import re
from typing import NamedTuple

import pytest

from tests.suites.workers.conftest import starting
from tests.suites.workers.runs import AFTER, BEFORE, LIMIT, MARGIN, STRUCK, TIMEOUT, fault, kib_of

KILLED = r"rank {} was killed by SIGKILL \(out of memory\? see the kernel's log\) while {} all_reduce gloo {} KiB"
TOO_LONG = r"rank {} was killed by SIGABRT: .*EnforceNotMet.* while checking all_reduce gloo {} KiB"


class Planted(NamedTuple):
    """What happens to a rank, and what is told of it."""

    rank: int
    what: str
    when: str
    kib: int
    reason: str


PLANTED = {
    "killed before a collective": Planted(1, "kill", "check", 2, KILLED.format(1, "checking", 2)),
    "killed in it": Planted(1, "kill", "in", 4, KILLED.format(1, "checking", 4)),
    "killed after it": Planted(1, "kill", "sample", 6, KILLED.format(1, "timing", 6)),
    "rank 0 killed in it": Planted(0, "kill", "in", 8, KILLED.format(0, "checking", 8)),
    "killed by the kernel for want of memory": Planted(1, "kill", "draw", 10, KILLED.format(1, "setting up", 10)),
    "out of memory": Planted(
        1,
        "too much memory",
        "draw",
        12,
        "out of memory: rank 1 failed: .*allocate memory.*; try a smaller --message or fewer --ranks",
    ),
    # gloo ends the process that is sent more than it asked for
    "another shape": Planted(1, "another shape", "draw", 14, TOO_LONG.format(0, 14)),
    "another shape on rank 0": Planted(0, "another shape", "draw", 18, TOO_LONG.format(1, 18)),
}
GOOD = (1, 3, 5, 7, 9, 11, 13, 15, 19)  # KiB: a case before, between and after them
SURVIVED = ("out of memory",)
PATIENT = "--rank-timeout=60"
"""Each rank that is lost is started anew, also on a busy machine; that one died is noticed without waiting."""


@pytest.fixture(scope="module")
def run(start_shared):
    """One run in which all of this happens, each at another message."""
    planted = [fault(one.rank, one.what, one.when, one.kib) for one in PLANTED.values()]
    kib = sorted([*GOOD, *(one.kib for one in PLANTED.values())])
    return start_shared(PATIENT, planted=planted, kib=kib).wait(limit=4 * LIMIT)


@pytest.mark.parametrize("name", PLANTED)
def test_what_happened_to_which_rank_at_which_case_is_told_in_a_line(run, name):
    planted = PLANTED[name]
    assert re.fullmatch(planted.reason, run.failed[planted.kib])
    assert run.failed[planted.kib] in run.output.splitlines()


@pytest.mark.parametrize("name", PLANTED)
def test_it_is_told_in_time(run, name):
    assert run.seconds_to_notice(PLANTED[name].kib) < TIMEOUT + MARGIN


def test_every_other_case_is_measured(run):
    assert set(run.failed) == {one.kib for one in PLANTED.values()}
    assert set(run.measured) == set(GOOD)


def test_the_result_file_holds_what_the_journal_holds(run):
    assert run.written == run.measured
    assert {kib_of(one["case"]): one["reason"] for one in run.result["shardbench"]["failed"]} == run.failed


def test_the_run_is_no_success(run):
    assert run.status == 1


def test_ranks_are_started_anew_only_where_one_was_lost_and_none_is_left(run):
    assert len(run.ranks()) == 2 * (1 + len(PLANTED) - len(SURVIVED))
    assert run.most_at_once() == 2
    assert run.leaves_nothing(), run.left()


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """A run whose rank is killed in the second pass."""
    with starting(tmp_path_factory.mktemp("late")) as start:
        yield start("--passes=2", PATIENT, planted=[fault(1, "kill", "sample", after=AFTER)]).wait()


def test_a_rank_that_is_lost_in_a_later_pass_costs_no_sample(late):
    assert set(late.written) == {BEFORE, STRUCK, AFTER}
    told = {kib_of(one["fullname"]): one["extra_info"] for one in late.result["benchmarks"]}
    assert {kib: info["passes"] for kib, info in told.items()} == {BEFORE: 2, STRUCK: 1, AFTER: 2}
    assert re.fullmatch("error: " + KILLED.format(1, "timing", STRUCK), told[STRUCK]["stopped_by"])
    assert late.leaves_nothing(), late.left()


def test_a_rank_that_is_lost_in_a_later_pass_is_told_and_the_run_is_no_success(late):
    (line,) = (line for line in late.output.splitlines() if line.startswith("ended early"))
    assert re.search(rf"-{STRUCK}KiB-.*: {KILLED.format(1, 'timing', STRUCK)}$", line)
    assert late.status == 1
