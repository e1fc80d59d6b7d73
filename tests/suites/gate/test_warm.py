"""Compiling beforehand: many processes, records that do not compile, a compiler that dies, an end of time."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from suites.gate import launches, warm

# Of the process of pytest, which has threads; the step has one when it forks.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

GOOD = {
    "kernel": "kernels.ceilings:_read",
    "arguments": {
        "buffer": {"pointer": "bf16", "aligned": True},
        "out": {"pointer": "fp32", "aligned": True},
        "elements": {"integer": {"one": False, "divisible": False, "bits": 32}},
        "BLOCK": {"value": 8192},
    },
    "options": {"num_warps": 4},
}
LOST = {**GOOD, "kernel": "kernels.ceilings:_no_such_kernel"}


def numbered(count):
    return [{**GOOD, "options": {"num_warps": 4, "number": number}} for number in range(count)]


@pytest.fixture
def compiling(monkeypatch):
    """A compiler of our own in the forked processes."""

    def use(compile_launch):
        monkeypatch.setattr(launches, "compile_launch", compile_launch)
        monkeypatch.setattr(warm, "_build_launcher", lambda made: None)
        made = warm.CompilerPool(3, "sm_90")
        ended.append(made)
        return made

    ended = []
    yield use
    for one in ended:
        one.close()


def test_all_records_are_compiled_and_a_failure_is_that_of_its_own(compiling):
    def compile_launch(record):
        if record["options"]["number"] % 3 == 1:
            raise ValueError("no such layout\nand more")

    found = {
        record["options"]["number"]: reason for record, reason in compiling(compile_launch).compile(numbered(8), 60)
    }
    bad = "ValueError: no such layout"
    assert found == {0: None, 1: bad, 2: None, 3: None, 4: bad, 5: None, 6: None, 7: bad}


def test_a_compiler_that_dies_costs_its_record_alone(compiling):
    def compile_launch(record):
        if record["options"]["number"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    found = {
        record["options"]["number"]: reason for record, reason in compiling(compile_launch).compile(numbered(9), 60)
    }
    assert found.pop(2) == "the compiler's process ended with status -9"
    assert found == dict.fromkeys((0, 1, 3, 4, 5, 6, 7, 8))


def test_it_ends_with_its_time_and_says_what_is_left(compiling):
    def compile_launch(record):
        time.sleep(0.0 if record["options"]["number"] < 3 else 60.0)

    compilers, began = compiling(compile_launch), time.monotonic()
    done = [record["options"]["number"] for record, _ in compilers.compile(numbered(9), 2.0)]
    compilers.close()
    assert time.monotonic() - began < 30
    assert sorted(done) == [0, 1, 2]
    verdict = warm.judge_warm(9, 3, [], 2.0, "sm_90")
    assert (verdict.outcome, verdict.figures["compiled"]) == ("unfinished", 3)


def run(tmp_path, *more):
    status = warm.main(["--out", str(tmp_path), "--verdict", str(tmp_path / "v.json"), "--seconds", "120", *more])
    return status, json.loads((tmp_path / "v.json").read_text())


def test_the_program_compiles_what_is_recorded_and_lists_what_it_could_not(tmp_path, monkeypatch):
    monkeypatch.setattr(launches, "read_records", lambda arch: [GOOD, LOST])
    status, verdict = run(tmp_path, "--arch", "sm_90", "--processes", "2")
    assert status == 0
    assert verdict["figures"]["compiled"] == 1
    assert verdict["figures"]["failed"][0].startswith("kernels.ceilings:_no_such_kernel: AttributeError: ")
    assert "1 of 2 launches for sm_90 compiled" in verdict["detail"]


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_no_process_at_all_is_refused_in_a_line(tmp_path, capsys, count):
    with pytest.raises(SystemExit) as left:
        run(tmp_path, "--arch", "sm_90", "--processes", count)
    assert left.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"argument --processes: {count} is not a number of processes: at least 1")


def test_an_architecture_without_a_record_is_said_and_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(launches, "read_records", lambda arch: [])
    status, verdict = run(tmp_path, "--arch", "sm_89")
    assert (status, verdict["outcome"]) == (0, "not_run")
    assert verdict["detail"] == "no launches are recorded for sm_89: kernels compile where they are launched"


def test_a_compiler_that_compiles_nothing_has_failed():
    assert warm.judge_warm(3, 3, ["a: no", "b: no", "c: no"], 1.0, "sm_90").outcome == "failed"
    assert warm.judge_warm(3, 3, ["a: no"], 1.0, "sm_90").outcome == "passed"


def test_the_step_forks_its_compilers_from_a_single_thread():
    program = "import os, kernels.registry, kernels.registry; print(len(os.listdir('/proc/self/task')))"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", **warm.STEP.environment}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
