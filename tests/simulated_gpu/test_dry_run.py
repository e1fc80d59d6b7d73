"""The dry run itself: what it refuses, what it calls a problem, and planted faults that it finds."""

import json
from types import SimpleNamespace

import pytest

from kernels.triton_utils import missing_triton
from tests.simulated_gpu import dry_run, truth
from tests.simulated_gpu.dry_run import DryRunResult, main, report
from tests.simulated_gpu.fake_suites import unmeasured
from tests.simulated_gpu.planted_faults import PLANTED_FAULTS

pytestmark = pytest.mark.skipif(missing_triton() is not None, reason="the dry run binds kernels of Triton")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--plant", "nonsense"], "PLANT=nonsense is unknown; choose one of launch-in-capture"),
        (["--only", "evidence,nonsense"], "--only nonsense is unknown; choose of evidence"),
        (["--record", "--plant", "no-verdict"], "RECORD=1 takes a whole run"),
        (["--record", "--only", "smoke"], "RECORD=1 takes a whole run"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_line(capsys, arguments, reason):
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"make dry-gpu: {reason}")
    assert told.count("\n") == 1


def test_a_folder_of_the_users_is_not_deleted(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["--folder", str(tmp_path)]) == 2
    assert "not deleted" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_every_plant_is_listed_with_what_it_does(capsys):
    assert main(["--plant", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0]: line[24:].strip() for line in lines} == {
        name: one.text for name, one in PLANTED_FAULTS.items()
    }


@pytest.mark.parametrize("name", ["no-verdict", "timer-no-ramp"])
def test_a_planted_fault_is_found_and_named(tmp_path, capsys, name):
    """Two that take seconds; `make dry-gpu PLANT=name` plants the others."""
    assert main(["--plant", name, "--folder", str(tmp_path / "run")]) == 1
    assert f"planted {name}: {PLANTED_FAULTS[name].sign}" in capsys.readouterr().out
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["plant"] == name
    assert any(PLANTED_FAULTS[name].sign in problem for problem in written["problems"])


def test_a_fault_that_is_not_found_is_no_success(capsys):
    found = DryRunResult(problems=["evidence: something else"])
    assert report(found, "timer-no-ramp") == 3
    assert "planted timer-no-ramp: NOT FOUND" in capsys.readouterr().out
    assert report(found, "") == 1
    assert report(DryRunResult(), "") == 0


def test_a_part_that_dies_is_a_problem_and_ends_no_other():
    run = SimpleNamespace(found=DryRunResult())
    dry_run.guarded(run, "capped", lambda: 1 / 0)
    assert run.found.problems == ["capped: the dry run itself failed: ZeroDivisionError: division by zero"]


def entries(count, implementation):
    name = "suites/bench_linears.py::bench_decode[{}]".format
    case = {"op": "linear", "implementation": implementation, "launch": "graph"}
    return [SimpleNamespace(case=SimpleNamespace(name=name(number), **case)) for number in range(count)]


def test_of_each_stratum_the_first_and_every_tenth_behind_it_are_measured():
    many, few = entries(25, "torch"), entries(2, "triton")
    left_out = unmeasured([*many, *few], 0.1)
    assert [one for one in [*many, *few] if one not in left_out] == [many[0], many[10], many[20], few[0]]
    assert unmeasured(many, 1.0) == []
    assert unmeasured(many, 0.0) == many


def written(path, median, cache="cold", throttled=False, moved=0.0):
    info = {"throttled": throttled, "telemetry": {"moved_visits": moved}}
    benchmark = {"fullname": "suites/a.py::case", "stats": {"median": median}, "extra_info": info}
    path.write_text(json.dumps({"benchmarks": [benchmark]}))
    return [{"kind": "truth", "case": "suites/a.py::case", "seconds": 10e-6, "cache": cache}]


def test_a_case_is_held_against_the_truth_of_its_own_name(tmp_path):
    path = tmp_path / "a.json"
    (one,) = truth.judge(path, written(path, 10.3e-6))
    assert one.off == pytest.approx(0.03)
    assert not one.labelled
    assert str(one) == "case: +3.0 % off the true 10.00 us"


@pytest.mark.parametrize("label", [{"throttled": True}, {"moved": 1.0}])
def test_a_case_whose_clock_moved_says_so(tmp_path, label):
    path = tmp_path / "a.json"
    (one,) = truth.judge(path, written(path, 10.3e-6, **label))
    assert one.labelled


def test_a_case_that_is_neither_cold_nor_hot_has_no_truth(tmp_path):
    path = tmp_path / "a.json"
    assert truth.judge(path, written(path, 10.3e-6, cache="rotated-6")) == []
