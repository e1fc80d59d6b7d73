import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reports import output
from specs import journal
from specs.errors import UserError
from tests.reports import planted
from tests.reports.run_reports import run_reports

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    return planted.write(tmp_path / "x.json", [planted.measured(planted.case(), 1.0), *planted.ceilings()])


def reports(*arguments, **environment):
    """The command in a process of its own, with its output in pipes."""
    command = [sys.executable, "-m", "reports", *map(str, arguments)]
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | environment
    return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", env=variables, check=False)


def test_show_in_a_pipe(path):
    done = reports("show", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "\ndecode  llama-3-70b · o · linear" in done.stdout
    assert max(map(len, done.stdout.split("\n"))) <= max(120, len(str(path)))


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path):
    done = reports("show", tmp_path / "none.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}/none.json: no such file; give a file that --benchmark-json wrote\n"


def test_a_report_needs_no_torch(path):
    code = (
        "import contextlib, sys, reports.__main__ as r\n"
        "with contextlib.suppress(SystemExit): r.main(['show', sys.argv[1]])\n"
        "sys.exit('torch' in sys.modules or 'suites' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"decode" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "needless"),
    [
        (["plan", "--help"], ["numpy", "scipy", "pandas", "altair", "jinja2", "pytest_benchmark"]),
        (["import", "--help"], ["numpy", "scipy", "pandas", "altair", "jinja2", "pytest_benchmark"]),
        (["show"], ["pandas", "altair", "jinja2", "pytest_benchmark"]),
        (["claims"], ["pandas", "altair", "jinja2", "pytest_benchmark"]),
    ],
    ids=" ".join,
)
def test_a_command_imports_only_the_packages_that_it_needs(path, arguments, needless):
    code = (
        "import contextlib, sys, reports.__main__ as r\n"
        "with contextlib.suppress(SystemExit): r.main(sys.argv[1:])\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    files = [] if "--help" in arguments else [path]
    command = [sys.executable, "-c", code, *arguments, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout
    assert {*needless} & {*done.stderr.split()} == set()


def test_no_cycles_are_looked_for_while_a_command_runs(path, monkeypatch):
    seen = []
    monkeypatch.setattr("reports.show.show", lambda *_: seen.append(gc.isenabled()))
    assert run_reports("show", path) == 0
    assert (seen, gc.isenabled()) == ([False], True)


def test_an_encoding_without_these_letters_still_prints(path):
    done = reports("show", path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "llama-3-70b ? o ? linear" in done.stdout


def test_a_full_disk_behind_standard_output(path):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "reports", "show", path]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: standard output: cannot write it (No space left on device); give -o FILE elsewhere\n"
    )


def test_a_reader_that_has_seen_enough(path):
    command = [sys.executable, "-m", "reports", "show", *[path] * 300]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""


def test_help_without_arguments(capsys):
    run_reports()
    assert {"show", "compare", "recover"} <= set("".join(capsys.readouterr()).split())


@pytest.mark.parametrize(
    "arguments", [["html"], ["show", "x", "--format", "pdf"], ["compare", "x"], ["recover", "x"], ["draw"]]
)
def test_wrong_usage(arguments, capsys):
    assert run_reports(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: python -m reports" in captured.err


def test_writes_where_it_is_told(path, tmp_path, capsys):
    to = tmp_path / "report.json"
    assert run_reports("show", path, "--format", "json", "-o", to) == 0
    assert [row["op"] for row in json.loads(to.read_text())] == ["linear", "read", "linear"]
    assert capsys.readouterr().out == ""
    assert run_reports("show", path, "--format", "markdown", "-o", to) == 0
    assert to.read_text().startswith("## ")


def test_compare(path, capsys):
    assert run_reports("compare", path, path, "--threshold", "2.5%", "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["threshold"], data["summary"]["same"]) == (0.025, 3)
    assert run_reports("compare", path, path, "--threshold", "5") == 2
    assert capsys.readouterr().err.startswith("error: --threshold '5': not between 0 and 100%")


def test_recover(tmp_path, capsys):
    path, to = tmp_path / "x.json.journal.jsonl", tmp_path / "x.json"
    journal.append_record(path, "run", {"shardbench_schema": 1, "machine_info": planted.CPU, **planted.MADE})
    journal.append_record(path, "benchmark", planted.entry(planted.measured(planted.case(), 1.0)))
    assert run_reports("recover", path, "-o", to) == 0
    assert capsys.readouterr().out == f"{to}: recovered 1 measured, 0 not run, 0 failed from {path}\n"
    assert run_reports("show", to) == 0


def test_refuses_to_write_over_what_it_reads(path, capsys):
    before = path.read_text()
    assert run_reports("show", path, "-o", path) == 2
    assert "would overwrite a result file that this report reads; give another -o" in capsys.readouterr().err
    assert path.read_text() == before


def test_refuses_a_folder_and_a_path_without_one(tmp_path):
    with pytest.raises(UserError, match="a folder; give -o the name of a file in it"):
        output.write_file(tmp_path, "x")
    with pytest.raises(UserError, match=r"there is no folder .*/none; make it, or give another -o"):
        output.write_file(tmp_path / "none" / "x", "x")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    to = tmp_path / "x"
    to.write_text("old")
    monkeypatch.setattr(output.os, "fsync", full)
    with pytest.raises(UserError, match="cannot write it \\(No space left on device\\); give another -o"):
        output.write_file(to, "new")
    assert (to.read_text(), [one.name for one in tmp_path.iterdir()]) == ("old", ["x"])


def test_writes_through_a_link_and_into_a_device(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    output.write_file(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    output.write_file(Path(os.devnull), "gone")
    assert Path(os.devnull).is_char_device()
