"""A run of the collectives as a user starts it: three ranks of this CPU, and what is in the file afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reports.results import load
from tests.suites.workers.runs import SPARED_PLUGINS

ROOT = Path(__file__).parents[3]
LIMIT_SECONDS = 180


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the collectives' suites on three ranks into one file; `run(*options)` gives output and path."""
    path = tmp_path_factory.mktemp("ranks") / "out.json"

    def run(*options):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            *SPARED_PLUGINS,
            "--ranks",
            "3",
            "--impl",
            "gloo",
        ]
        suites = [f"suites/bench_{name}.py" for name in ("collectives", "point_to_point", "messages")]
        narrowed = [
            "--message",
            "12KiB,48KiB",
            "--tokens",
            "3",
            "--gap",
            "0,1",
            "--benchmark-json",
            str(path),
            "--passes",
            "2",
        ]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("COLUMNS", "PYTEST"))}
        return subprocess.run(
            [*command, *suites, *narrowed, "--benchmark-json", str(path), *options],
            cwd=ROOT, env=clean, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
        ), path  # fmt: skip

    return run


@pytest.fixture(scope="module")
def measured(run):
    done, path = run()
    assert done.returncode == 0, done.stdout + done.stderr
    return load(path)


def test_every_operation_is_measured_and_right(measured):
    assert {one.case.op for one in measured.measurements} >= {
        "all_reduce", "all_gather", "reduce_scatter", "broadcast", "send_recv", "exchange", "ring_shift", "ping_pong",
    }  # fmt: skip
    assert not measured.failed
    assert all(one.relative_error == 0 for one in measured.measurements)


def test_a_case_says_how_many_ranks_which_message_and_the_bytes_that_one_sends(measured):
    cases = {(one.case.op, one.case.message_bytes): one.case for one in measured.measurements}
    assert {case.ranks for case in cases.values()} == {3}
    # 2 (3 - 1) / 3 of 12 KiB, and as much as the message
    assert cases["all_reduce", 12288].wire_bytes_sent_per_rank == 16384
    assert cases["send_recv", 12288].wire_bytes_sent_per_rank == 12288


def test_the_skew_of_the_ranks_and_how_it_was_timed_are_kept(measured):
    for one in measured.measurements:
        assert one.skew_seconds is not None
        assert one.skew_seconds >= 0  # at the end of a sample of many calls, so it may be longer than one call
        assert one.clock == "perf_counter"
        assert one.transport == "loopback"


def test_a_call_after_an_idle_gap_is_a_case_of_its_own(measured):
    gaps = {one.case.gap_seconds for one in measured.measurements if one.case.op == "all_reduce"}
    assert gaps == {0.0, 1e-3}
    assert {one.calls for one in measured.measurements if one.case.gap_seconds} == {1}


def test_two_talk_and_the_third_waits(measured):
    pairs = {one.case.op: one.case.pair for one in measured.measurements}
    assert {op for op, pair in pairs.items() if pair} == {"send_recv", "exchange", "ping_pong"}
    assert set(filter(None, pairs.values())) == {"0-1"}


def test_a_models_messages_are_its_hidden_state_and_twice_that_with_the_residual(measured):
    messages = {
        (one.case.op, one.case.layer): (one.case.message_bytes, one.case.tp, one.case.pp)
        for one in measured.measurements
        if one.case.question == "messages"
    }
    whole = 3 * 2048 * 2  # 3 tokens x hidden 2048 of llama-3.2-1b x 2 bytes
    assert messages == {
        ("send_recv", "hidden"): (whole, 1, 3),
        ("send_recv", "hidden+residual"): (2 * whole, 1, 3),
    }


def test_a_model_that_three_ranks_do_not_divide_is_listed_with_the_reason(measured):
    reasons = [reason for case, reason in measured.not_run.items() if "bench_tp" in case]
    assert len(reasons) == 4  # two operations, each with and without a gap
    assert all(reason.startswith("llama-3.2-1b: tp=3 must divide 32 heads") for reason in reasons)


def test_the_file_says_who_started_the_ranks_and_on_how_many_hosts(measured):
    machine = measured.machine
    assert (machine["ranks"], machine["hosts"], machine["launcher"]) == (3, 1, "own")


def test_a_run_goes_on_with_the_samples_it_has_and_refuses_other_ranks(measured, run):
    more, path = run("--resume", "--passes", "3", "-k", "broadcast")
    assert more.returncode == 0, more.stdout
    assert {len(one.seconds) for one in load(path).measurements} == {3}
    other, _ = run("--resume", "--ranks", "2", "-k", "broadcast")
    assert other.returncode != 0
    assert "measured with ranks 3, this is 2" in other.stdout + other.stderr


def test_the_journal_is_plain_json(measured, run):
    lines = Path(f"{measured.path}.journal.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)
