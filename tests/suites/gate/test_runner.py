"""The runner: each step a process of its own, in one budget, and gate.json right after every one of them."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from suites.gate import runner
from suites.gate import step as gate_step
from suites.gate.machine import Machine
from suites.gate.runner import GateRun
from suites.gate.step import Profile, grant_seconds, planned_seconds
from tests.suites.conftest import ROOT
from tests.suites.gate.fakes import EVERYTHING, place, step

SLEEPERS = """
import subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", deaf])
print("st" + "arted", child.pid, flush=True)
time.sleep(60)
"""
"""A step and its child, which does not listen to interrupts."""


def run(tmp_path, *steps, budget=60.0, machine=EVERYTHING, say=lambda line: None):
    return GateRun(steps, machine, place(tmp_path), budget, say).run()


def written(tmp_path):
    return json.loads((tmp_path / "out/gate.json").read_text())["steps"]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pid, seconds=5.0):
    limit = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < limit:
        time.sleep(0.02)
    return not alive(pid)


def child_of(log):
    return int(log.read_text().split("started ")[1].split()[0])


@pytest.fixture(autouse=True)
def little_grace(monkeypatch):
    monkeypatch.setattr(gate_step.run_limited, "__defaults__", (0.3,))


def test_a_step_passes_or_fails_by_its_exit_status_and_says_its_last_line(tmp_path):
    good, bad = run(
        tmp_path, step("good", "print('first'); print('all well')"), step("bad", "raise SystemExit('oh no')")
    )
    assert (good.outcome, good.detail) == ("passed", "all well")
    assert (bad.outcome, bad.detail) == ("failed", "exit status 1: oh no")


def test_a_failing_step_does_not_end_the_run(tmp_path):
    results = run(tmp_path, step("bad", "raise SystemExit(3)"), step("good", "print('ran')"))
    assert [one.outcome for one in results] == ["failed", "passed"]


def test_a_step_that_cannot_be_started_fails_alone(tmp_path):
    lost = step("lost")
    object.__setattr__(lost, "command", lambda place, seconds: ["/nowhere/python"])
    first, second = run(tmp_path, lost, step("good", "print('ran')"))
    assert first.outcome == "failed"
    assert "/nowhere/python cannot be started" in first.detail
    assert second.outcome == "passed"


def test_a_step_beyond_its_limit_is_ended_with_all_that_it_started(tmp_path):
    began = time.monotonic()
    slow, after = run(tmp_path, step("slow", SLEEPERS, most_seconds=1.5), step("after", "print('ran')"))
    assert time.monotonic() - began < 20
    assert slow.outcome == "unfinished"
    assert slow.detail.startswith("ended at its limit of 2 s; last line: started ")
    assert gone(child_of(tmp_path / "out/gate.log"))
    assert after.outcome == "passed"


def test_children_left_behind_by_a_step_that_ended_are_ended_too(tmp_path):
    (leaver,) = run(tmp_path, step("leaves", SLEEPERS.rstrip().removesuffix("time.sleep(60)")))
    assert leaver.outcome == "passed"
    assert gone(child_of(tmp_path / "out/gate.log"))


def test_a_stranger_survives_the_end_of_a_step(tmp_path):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        run(tmp_path, step("slow", SLEEPERS, most_seconds=1.0))
        assert alive(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait()


def test_an_ended_step_keeps_the_figures_that_it_had_left(tmp_path):
    (slow,) = run(tmp_path, step("slow", leaves("passed", "import time; time.sleep(60)"), most_seconds=1.5))
    assert (slow.outcome, slow.detail) == ("unfinished", "ended at its limit of 2 s; so")
    assert slow.figures == {"seconds": 1.5}


def verdict(outcome="passed"):
    return {"outcome": outcome, "detail": "so", "figures": {"seconds": 1.5}}


def leaves(outcome, then=""):
    return f"with open(VERDICT, 'w') as file:\n    file.write({json.dumps(json.dumps(verdict(outcome)))})\n{then}"


def test_a_program_that_leaves_a_verdict_is_believed_unless_it_then_fails(tmp_path):
    not_run, crashed = run(tmp_path, step("a", leaves("not_run")), step("b", leaves("passed", "raise SystemExit(7)")))
    assert (not_run.outcome, not_run.detail, not_run.figures) == ("not_run", "so", {"seconds": 1.5})
    assert (crashed.outcome, crashed.detail) == ("failed", "exit status 7 after: so")


def test_where_no_time_is_left_a_step_is_skipped_with_a_word(tmp_path):
    first, second = run(tmp_path, step("first", "print(1)"), step("second", "print(2)", least=50.0), budget=10.0)
    assert first.outcome == "passed"
    assert second.outcome == "skipped"
    assert second.detail.startswith("no time: it needs 50 s, ")


def test_an_ended_step_that_had_seen_something_wrong_has_failed(tmp_path):
    (slow,) = run(tmp_path, step("slow", leaves("failed", "import time; time.sleep(60)"), most_seconds=1.5))
    assert (slow.outcome, slow.detail) == ("failed", "ended at its limit of 2 s; so")


SCATTERED = """
import os, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
print("st" + "arted", child.pid, flush=True)
time.sleep(60)
"""
"""A child in a session of its own, out of the reach of its step's process group."""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_grandchild_in_a_session_of_its_own_ends_with_its_step(tmp_path):
    run(tmp_path, step("scattered", SCATTERED, most_seconds=1.5))
    assert gone(child_of(tmp_path / "out/gate.log"))


def test_what_is_reserved_for_the_table_is_not_given_to_those_before(tmp_path):
    greedy, table = step("greedy", SLEEPERS, seconds=2.0), step("table", "print('table')", seconds=18.0)
    began = time.monotonic()
    first, last = run(tmp_path, greedy, table, budget=20.0)
    assert time.monotonic() - began < 15
    assert first.outcome == "unfinished"
    assert last.outcome == "passed"


def profile(*steps, budget=400.0):
    return Profile("some", "some steps", budget, steps)


def test_each_step_has_its_own_seconds_and_what_those_before_it_left():
    """50 + 120 + 70 = 240 of 400: the first may take the other 160 too, a capped one leaves them to the next."""
    first, second, third = step("a", seconds=50.0), step("b", seconds=120.0), step("c", seconds=70.0)
    assert planned_seconds(profile(first, second, third)) == {"a": 210.0, "b": 120.0, "c": 70.0}
    capped = step("a", seconds=50.0, most_seconds=60.0)
    assert planned_seconds(profile(capped, second, third)) == {"a": 60.0, "b": 270.0, "c": 70.0}
    assert grant_seconds(second, 120.0, 70.0, 300.0) == 230.0
    assert grant_seconds(second, 120.0, 70.0, 100.0) == 120.0, "a step that overran takes nothing of the next one's"


def test_a_smaller_budget_shrinks_all_alike_and_skips_what_would_be_too_short():
    """100 of 240 s: 50 x 100 / 240 = 20.8, 120 -> 50, 70 -> 29.2, which is less than 40."""
    steps = step("a", seconds=50.0), step("b", seconds=120.0), step("c", seconds=70.0, least=40.0)
    shares = planned_seconds(profile(*steps), 100.0)
    assert shares == {"a": pytest.approx(20.83, abs=0.01), "b": pytest.approx(50.0), "c": 0.0}


def test_what_cannot_run_leaves_its_seconds_to_the_others(tmp_path):
    told = []
    first = step("first", "print()", seconds=10.0)
    command = first.command
    object.__setattr__(first, "command", lambda place, seconds: (told.append(seconds), command(place, seconds))[1])
    run(tmp_path, first, step("second", packages=("absent",), seconds=30.0), budget=40.0)
    assert told == [pytest.approx(40.0, abs=1.0)]


def test_a_step_is_told_how_long_it_may_take(tmp_path):
    told = []
    one = step("one", "print()", most_seconds=5.0)
    command = one.command
    object.__setattr__(one, "command", lambda place, seconds: (told.append(seconds), command(place, seconds))[1])
    run(tmp_path, one, budget=60.0)
    run(tmp_path, one, budget=3.0)
    assert told == [5.0, pytest.approx(3.0, abs=0.5)]


def test_what_a_step_lacks_is_said_and_it_is_not_run(tmp_path):
    machine = Machine("fake GPU", "", {"there": True, "absent": False})
    needy = step("needy", "print()", packages=("there", "absent"), tools=("no-such-profiler",))
    (result,) = run(tmp_path, needy, machine=machine)
    assert result.outcome == "not_run"
    assert result.detail == "not installed: absent; not on the PATH nor below CUDA_HOME: no-such-profiler"


def test_gate_json_is_valid_after_every_step(tmp_path):
    seen = []

    def say(line):
        if (tmp_path / "out/gate.json").exists():
            seen.append([one["step"] for one in written(tmp_path)])

    run(tmp_path, step("a", "print()"), step("b", "raise SystemExit(1)"), step("c", "print()"), say=say)
    assert seen == [["a"], ["a"], ["a", "b"], ["a", "b"], ["a", "b", "c"]]
    assert set(written(tmp_path)[0]) == {"step", "outcome", "seconds", "detail", "figures"}
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_all_output_is_in_one_log_under_headings(tmp_path):
    run(tmp_path, step("a", "print('from a')"), step("b", "import sys; print('from b', file=sys.stderr)"))
    log = (tmp_path / "out/gate.log").read_text()
    assert log.index("===== a =====") < log.index("from a") < log.index("===== b =====") < log.index("from b")


def test_a_step_that_is_the_answer_is_shown(tmp_path):
    lines = []
    run(
        tmp_path,
        step("table", "print('| a | b |')", shows_output=True),
        step("other", "print('hidden')"),
        say=lines.append,
    )
    assert "| a | b |" in lines
    assert "hidden" not in lines


def test_a_verdict_of_an_earlier_step_is_not_taken_for_this_one(tmp_path):
    place(tmp_path).verdict("a").write_text(json.dumps(verdict()))
    (result,) = run(tmp_path, step("a", "raise SystemExit(2)"))
    assert result.outcome == "failed"
    assert result.figures == {}


PROGRAM = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
from suites.gate import command
from suites.gate.step import Profile
from tests.suites.gate.fakes import EVERYTHING, step
from tests.suites.gate.test_runner import SLEEPERS, leaves
steps = (step("done", leaves("passed")), step("slow", SLEEPERS), step("never", "print()"))
command.inspect_machine = lambda python, packages: EVERYTHING
profile = Profile("evidence", "fakes", 60.0, steps)
raise SystemExit(command.run_gate(profile, None, Path(sys.argv[1]), sys.executable, listed=False))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_gate_ends_its_child_and_keeps_what_was_measured(tmp_path, number):
    gate = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "out")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    log = tmp_path / "out/gate.log"
    limit = time.monotonic() + 120
    while not (log.exists() and "started " in log.read_text()) and time.monotonic() < limit:
        time.sleep(0.05)
    os.kill(gate.pid, number)
    killer = threading.Timer(60, gate.kill)
    killer.start()
    output, _ = gate.communicate()
    killer.cancel()
    assert gate.returncode == 130
    assert gone(child_of(log))
    outcomes = {one["step"]: (one["outcome"], one["detail"]) for one in written(tmp_path)}
    assert outcomes["done"] == ("passed", "so")
    assert outcomes["slow"] == ("unfinished", "interrupted")
    assert outcomes["never"] == ("not_run", "interrupted before it began")
    assert "interrupted" in output
    with tarfile.open(tmp_path / "out/evidence.tar.gz") as archive:
        assert {"gate.json", "gate.log"} <= set(archive.getnames())
    assert not (tmp_path / "out/work").exists()


WRITER = """
import os, pathlib
work = pathlib.Path(os.environ["WORK"])
(work / "logs/deep").mkdir(parents=True)
for number in range(9):
    (work / f"logs/deep/{number}.log").write_text("so")
(work / "h200.json").write_text("{}")
"""


def test_out_holds_few_files_and_one_archive_has_all_that_steps_wrote(tmp_path):
    file = {"outcome": "passed", "detail": "so", "figures": {"file": "h200.json"}}
    code = f"{WRITER}\nopen(VERDICT, 'w').write({json.dumps(json.dumps(file))})"
    run(tmp_path, step("a", code, environment={"WORK": str(tmp_path / "out/work")}), step("b", "print()"))
    left = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")}
    assert {str(path) for path in left} == {"gate.json", "gate.log", "h200.json", "evidence.tar.gz"}
    with tarfile.open(tmp_path / "out/evidence.tar.gz") as archive:
        assert {"logs/deep/8.log", "h200.json", "gate.json", "gate.log"} <= set(archive.getnames())
        assert json.load(archive.extractfile("gate.json"))["steps"][1]["step"] == "b"


def test_the_archive_of_an_earlier_run_is_kept(tmp_path):
    run(tmp_path, step("a", "print()"))
    run(tmp_path, step("b", "print()"))
    with tarfile.open(tmp_path / "out/evidence.previous.tar.gz") as archive:
        assert json.load(archive.extractfile("gate.json"))["steps"][0]["step"] == "a"


def test_a_full_disk_costs_the_archive_and_no_step(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    lines = []
    monkeypatch.setattr(runner.tarfile, "open", full)
    first, second = run(tmp_path, step("a", "print('so')"), step("b", "print('so')"), say=lines.append)
    assert (first.outcome, second.outcome) == ("passed", "passed")
    assert any("cannot be written (No space left on device)" in line for line in lines)
    assert (tmp_path / "out/work").exists(), "what is in no archive stays"
