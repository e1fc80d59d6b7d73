"""Processes that a launcher started: they agree on what to do, or each says in a line why not."""

import re
import socket

import pytest

from tests.suites.workers.runs import AFTER, BEFORE, MARGIN, STRUCK, TIMEOUT, fault, free_port, launcher_variables

SHORT = 3
"""--rank-timeout where somebody waits for who never comes."""


@pytest.fixture
def pair(start):
    """Starts two processes as ranks of a launcher."""

    def begin(*options, ranks=(0, 1), sizes=(2, 2), port=None, others=(), **more):
        port = port or free_port()
        first, second = (launcher_variables(rank, size, port) for rank, size in zip(ranks, sizes, strict=True))
        return start(*options, environment=first, **more), start(*options, *others, environment=second, **more)

    return begin


def assert_refused(run, reason):
    """One line, another status than success, no rank's process, nothing written."""
    assert run.status == 4, run.output
    (line,) = run.errors()
    assert re.fullmatch(f"ERROR: {reason}", line), line
    assert run.ranks() == []
    assert not run.json.exists()
    assert not run.journal_path.exists()
    assert run.leaves_nothing()


def test_a_port_in_use_is_named_with_what_to_do(pair):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        first, second = pair(f"--rank-timeout={SHORT}", port=port)
        first.wait()
        second.wait()
    assert_refused(
        first, rf"rank 0 cannot listen on 127\.0\.0\.1:{port} \(Address already in use.*set MASTER_PORT to .*"
    )
    looked = rf"rank 1 of 2: rank 0 at 127\.0\.0\.1:{port} has said nothing for {SHORT} s"
    assert_refused(second, rf"{looked}; another program may listen there: set MASTER_PORT to .*")


def test_processes_that_were_told_other_world_sizes_refuse(pair):
    for run in pair(sizes=(2, 3)):
        reason = (
            "wrong world size: rank 1 was started as one of 3, rank 0 as one of 2; start all ranks with the same count"
        )
        assert_refused(run.wait(), reason)


def test_a_rank_that_is_never_started_is_named(start):
    run = start(f"--rank-timeout={SHORT}", environment=launcher_variables(0, 2, free_port())).wait()
    assert_refused(run, f"1 of 2 ranks came within {SHORT} s; rank 1 did not: start as many as .*")


def test_a_rank_whose_rank_0_is_never_started_says_where_it_looked(start):
    port = free_port()
    run = start(f"--rank-timeout={SHORT}", environment=launcher_variables(1, 2, port)).wait()
    assert_refused(run, rf"rank 1 of 2: rank 0 at 127\.0\.0\.1:{port} cannot be reached within {SHORT} s .*")


def test_two_processes_with_the_same_rank_are_refused(pair, start):
    port = free_port()
    leader = start(environment=launcher_variables(0, 3, port))
    twins = pair(ranks=(1, 1), sizes=(3, 3), port=port)
    assert_refused(leader.wait(), "two processes say they are rank 1; each rank is started once")
    for twin in twins:
        assert_refused(
            twin.wait(), "(two processes say they are rank 1; each rank is started once|there is a rank 1 already)"
        )


def test_two_processes_that_are_both_rank_0_are_refused(pair, tmp_path):
    other_file = f"--benchmark-json={tmp_path / 'other.json'}"
    runs = [run.wait() for run in pair(f"--rank-timeout={SHORT}", ranks=(0, 0), others=(other_file,))]
    said = sorted(line for run in runs for line in run.errors())
    assert re.fullmatch(rf"ERROR: 1 of 2 ranks came within {SHORT} s; rank 1 did not: .*", said[0])
    assert re.fullmatch(r"ERROR: rank 0 cannot listen on .*Address already in use.*", said[1])
    assert [run.status for run in runs] == [4, 4]


def test_a_rank_with_other_options_is_refused(pair):
    for run in pair(others=("--message=1KiB",)):
        reason = "rank 1 has other cases than rank 0; give every rank the same options and the same commit"
        assert_refused(run.wait(), reason)


def test_when_rank_0_is_killed_the_other_process_ends_with_a_line_and_no_rank_stays(pair):
    first, second = pair(planted=[fault(1, "pause", "sample")])
    first.until_struck()
    first.process.kill()
    first.wait()
    second.wait(TIMEOUT + MARGIN)
    assert second.status == 4, second.output
    assert second.errors() == ["ERROR: rank 1 of 2: rank 0's process is gone; what it measured is in its journal"]
    assert len(first.ranks()) == 2
    first.leaves_nothing()
    assert first.left() == []
    assert set(first.measured) == {BEFORE}


def test_when_another_process_is_killed_rank_0_tells_and_lists_what_is_left(pair):
    first, second = pair(planted=[fault(1, "pause", "sample")])
    first.until_struck()
    second.process.kill()
    second.wait()
    first.wait(TIMEOUT + MARGIN)
    assert first.status == 1, first.output
    gone = "rank 1 is gone: the process that kept it closed the connection while timing all_reduce gloo 4 KiB"
    assert first.failed == {STRUCK: gone, AFTER: "rank 1's process is gone"}
    assert gone in first.output.splitlines()
    assert set(first.measured) == {BEFORE} == set(first.written)
    first.leaves_nothing()
    assert first.left() == []
