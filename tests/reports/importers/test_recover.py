import json
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.stats import Stats

from reports.importers.result_file import recover
from reports.results import load
from specs import journal
from specs.errors import UserError
from tests.reports import planted

HEADER = {"shardbench_schema": 1, "machine_info": planted.CPU, "options": {"passes": 3}, **planted.MADE}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "out.json.journal.jsonl"
    journal.append_record(path, "run", HEADER)
    return path


def add(path, *measurements):
    for measurement in measurements:
        entry = planted.entry(measurement)
        journal.append_record(path, "benchmark", {**entry, "stats": {"data": entry["stats"]["data"]}})


def test_makes_what_the_run_would_have_written(path, tmp_path):
    done = planted.measured(planted.case("s.py::b[1]"), ((3e-6, 4e-6), (5e-6, 6e-6)))
    add(path, planted.measured(done.case, ((3e-6, 4e-6),)), done)
    journal.append_record(path, "not_run", {"case": "s.py::b[2]", "reason": "needs a GPU"})
    journal.append_record(path, "failed", {"case": "s.py::b[3]", "reason": "wrong result"})
    to = tmp_path / "out.json"
    assert recover(path, to) == f"{to}: recovered 1 measured, 1 not run, 1 failed from {path}"
    file = load(to)
    assert file.measurements == (done,)
    assert (file.not_run, file.failed) == ({"s.py::b[2]": "needs a GPU"}, {"s.py::b[3]": "wrong result"})
    machine = {fact: value for fact, value in planted.CPU.items() if fact != "node"}  # the host's name stays out
    assert (file.machine, file.options, file.version) == (machine, {"passes": 3}, "5.3.1")
    assert (file.commit, file.datetime) == (planted.MADE["commit_info"], planted.MADE["datetime"])
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".tmp")] == []


def test_has_the_keys_and_statistics_of_a_file_that_pytest_benchmark_wrote(path, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "def test_it(benchmark):\n    benchmark.pedantic(lambda: None, rounds=5, iterations=1)\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--benchmark-json=own.json",
        "test_it.py",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs = json.loads((tmp_path / "own.json").read_text())
    entry = theirs["benchmarks"][0]
    add(path, planted.measured(planted.case("test_it.py::test_it"), (tuple(entry["stats"]["data"]),)))
    recover(path, tmp_path / "out.json")
    ours = json.loads((tmp_path / "out.json").read_text())
    assert [*ours] == [*theirs, "shardbench"]
    assert {*ours["benchmarks"][0]} == {*entry}
    assert ours["benchmarks"][0]["stats"] == entry["stats"]
    assert {*Stats.fields} <= {*entry["stats"]}


def test_pytest_benchmark_compares_it(path, tmp_path):
    add(path, planted.measured(planted.case("s.py::b[1]"), ((3e-3, 4e-3), (5e-3, 7e-3, 8e-3))))
    add(path, planted.measured(planted.case("s.py::b[2]"), ((20e-3,), (21e-3,))))
    to = tmp_path / "out.json"
    recover(path, to)
    command = [sys.executable, "-m", "pytest_benchmark", "compare", str(to), "--columns=median,rounds"]
    shown = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    rows = {words[0]: words for words in map(str.split, shown.split("\n")) if words and words[0].startswith("b[")}
    assert "time in ms" in shown
    assert "5.0000" in rows["b[1]"]
    assert "20.5000" in rows["b[2]"]
    assert (rows["b[1]"][-1], rows["b[2]"][-1]) == ("5", "2")


def test_leaves_out_a_line_that_a_crash_cut_short(path, tmp_path):
    add(path, planted.measured(planted.case("s.py::b[1]"), 1.0))
    with path.open("a") as stream:
        stream.write('{"benchmark": {"fulln')
    assert "recovered 1 measured" in recover(path, tmp_path / "out.json")


def test_a_failed_case_leaves_no_number(path, tmp_path):
    add(path, planted.measured(planted.case("s.py::b[1]"), 1.0))
    journal.append_record(path, "failed", {"case": "s.py::b[1]", "reason": "wrong result"})
    recover(path, tmp_path / "out.json")
    file = load(tmp_path / "out.json")
    assert (file.measurements, file.failed) == ((), {"s.py::b[1]": "wrong result"})


def test_nothing_to_recover(path, tmp_path):
    with pytest.raises(UserError, match="no case in it; the run ended before the first was measured, run it again"):
        recover(path, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("stats", "said"),
    [
        ({}, "no samples in the journal"),
        ({"data": []}, "no samples"),
        ({"data": [1.0]}, "1 samples do not fill passes"),
    ],
)
def test_refuses_a_damaged_entry_and_leaves_the_old_file(path, tmp_path, stats, said):
    entry = planted.entry(planted.measured(planted.case("s.py::b[1]"), 1.0))
    journal.append_record(path, "benchmark", {**entry, "stats": stats})
    (tmp_path / "out.json").write_text("{")
    with pytest.raises(UserError, match=said):
        recover(path, tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == "{"


def test_keeps_a_whole_file_that_holds_more(path, tmp_path):
    cases = [planted.measured(planted.case(f"s.py::b[{number}]"), 1.0) for number in (1, 2)]
    add(path, cases[0])
    to = planted.write(tmp_path / "out.json", cases)
    with pytest.raises(UserError, match=r"whole already, with 1 cases that .* lacks; give another -o"):
        recover(path, to)
    assert len(load(to).measurements) == 2
    add(path, cases[1])
    assert "recovered 2 measured" in recover(path, to)


def test_does_not_overwrite_the_journal(path):
    add(path, planted.measured(planted.case("s.py::b[1]"), 1.0))
    with pytest.raises(UserError, match="is the journal itself; give -o another name"):
        recover(path, path)


def test_needs_a_journal(tmp_path):
    with pytest.raises(UserError, match="cannot read the journal"):
        recover(Path(tmp_path / "none.jsonl"), tmp_path / "out.json")
