import json

import pytest

from reports.archive import entries
from reports.archive.entries import check, find_faults
from reports.results import parse
from specs.privacy import Identity
from tests.reports import planted
from tests.reports.run_reports import run_reports

CASE = "suites/bench_linears.py::bench_decode[planted]"
MACHINE = {fact: value for fact, value in planted.CPU.items() if fact != "node"}


def content(**changes):
    return planted.content([planted.measured(planted.case(), 1.0)], **{"machine": dict(MACHINE), **changes})


def info(whole):
    return whole["benchmarks"][0]["extra_info"]


def samples(whole):
    return whole["benchmarks"][0]["stats"]


@pytest.fixture
def found(tmp_path):
    """The faults of a file with these contents."""

    def found(whole):
        path = tmp_path / "out.json"
        path.write_text(whole if isinstance(whole, str) else json.dumps(whole))
        return list(find_faults(path, Identity(users=("alice",))))

    return found


def test_the_committed_files_are_sound(capsys):
    assert run_reports("check") == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [f"ok   {entries.path_from_root(path)}" for path in entries.result_paths(entries.DATA_FOLDER)]


def test_a_sound_file_has_no_fault(found):
    assert found(content()) == []


def test_an_imported_file_need_not_say_what_timed_it(found):
    facts = {"shardbench_schema": 1, "gpu": "NVIDIA H200", "source": "tables"}
    assert found(content(machine=facts, version="", commit_info={})) == []


def test_a_profile_need_not_say_what_it_did_not_see(found):
    facts = {"shardbench_schema": 1, "device": "cuda", "gpu": "NVIDIA H200", "profiler": "Nsight Compute"}
    assert found(content(machine=facts, version="", commit_info={})) == []


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (None, "pytest-benchmark's, but not of shardbench's suites; give a file that"),
        (0, "shardbench_schema is 0, no number from 1 on; run the suites again"),
        (True, "shardbench_schema is True, no number from 1 on"),
        ("1", "shardbench_schema is '1', no number from 1 on"),
        (2, "of schema 2, this shardbench reads up to 1; update shardbench"),
    ],
)
def test_a_schema_that_is_missing_older_newer_or_none_is_a_line(found, schema, said):
    (fault,) = found(content(machine=MACHINE | {"shardbench_schema": schema}))
    assert fault.startswith(said)


def test_a_file_whose_schemas_differ(found):
    whole = content()
    whole["shardbench"]["schema"] = 2
    assert found(whole) == ["schema is 2 in shardbench, 1 in machine_info; this shardbench writes 1 in both"]


def test_names_are_found_and_not_printed(found):
    machine = planted.CPU | {"variables": {"TORCH_HOME": "/scratch/alice/t"}}
    whole = content(machine=machine, commit_info={"branch": "alice/x"})
    assert found(whole) == [
        "machine_info.node is the host's name; take it out",
        "machine_info.variables.TORCH_HOME names a user, a host or a home folder; it should say '/scratch/<user>/t'",
        "commit_info.branch names a user, a host or a home folder; it should say '<user>/x'",
    ]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda whole: whole.pop("shardbench"), "no shardbench block"),
        (lambda whole: whole.pop("datetime"), "datetime is missing; run the suites again"),
        (lambda whole: whole["machine_info"].pop("torch"), "machine_info.torch is missing"),
        (lambda whole: whole["benchmarks"].clear(), "no case in it was measured"),
        (lambda whole: info(whole).update(passes=5), f"{CASE}: passes is 5, of 6 in pass_rounds"),
        (lambda whole: whole["benchmarks"][0]["stats"].update(rounds=3), f"{CASE}: rounds is 3, of 24 samples"),
        (lambda whole: samples(whole).update(mean=1.1), f"{CASE}: mean is 1.1, of its samples 1.0; the file was"),
        (lambda whole: samples(whole).update(min=0.9), f"{CASE}: min is 0.9, of its samples 1.0"),
        (lambda whole: samples(whole).update(max="1"), f"{CASE}: max is '1', of its samples 1.0"),
        (lambda whole: info(whole).update(interval_seconds=[1.0, 1.1]), f"{CASE}: upper end of interval"),
        (lambda whole: info(whole).pop("op"), f"{CASE}: not a shardbench case"),
    ],
)  # fmt: skip
def test_what_is_missing_or_was_edited_is_a_line(found, edit, said):
    whole = content()
    edit(whole)
    (fault,) = found(whole)
    assert fault.startswith(said)


def test_samples_that_were_edited_are_seen(found):
    """One of 24, a second each, is taken away from: the mean of the others and 0.5 is 23.5 / 24."""
    whole = content()
    whole["benchmarks"][0]["stats"] |= {"median": 1.0, "mean": 1.0, "min": 1.0, "max": 1.0, "rounds": 24}
    assert found(whole) == []
    samples(whole)["data"][3] = 0.5
    assert found(whole) == [
        f"{CASE}: mean is 1.0, of its samples {23.5 / 24!r}; the file was edited",
        f"{CASE}: min is 1.0, of its samples 0.5; the file was edited",
    ]
    samples(whole)["data"] = [2.0] * 24
    assert {fault.split()[1] for fault in found(whole)} == {"median", "mean", "min", "max", "lower", "upper"}


def test_an_interval_of_a_single_pass_was_put_there(found):
    whole = planted.content([planted.measured(planted.case(), 1.0, passes=1)], machine=dict(MACHINE))
    assert found(whole) == []
    info(whole)["interval_seconds"] = [0.9, 1.1]
    assert [fault.partition(",")[0] for fault in found(whole)] == [
        f"{CASE}: lower end of interval_seconds is 0.9",
        f"{CASE}: upper end of interval_seconds is 1.1",
    ]


def test_a_line_for_each_file_and_exit_1_when_one_fails(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(content()))
    assert check([tmp_path / "a.json"]) == [f"ok   {tmp_path / 'a.json'}"]
    (tmp_path / "b.json").write_text("{")
    assert run_reports("check", tmp_path) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"ok   {tmp_path / 'a.json'}"
    assert said[1].startswith(f"no   {tmp_path / 'b.json'}: cut short after 1 bytes")
    assert run_reports("check", tmp_path / "none.json") == 1
    assert "no such file" in capsys.readouterr().err


def test_an_empty_folder_is_an_error(tmp_path, capsys):
    assert run_reports("check", tmp_path) == 2
    assert "no result file in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("planted-cpu-9000-16-threads-2026-01-31-0123456", []),
        ("planted-9000-2026-02-01-0123456789ab", []),  # fewer words of the machine, and a day off by the time zone
        ("planted-9000-2026-02-02-0123456", ["its name says 2026-02-02, it was measured on 2026-01-31"]),
        ("planted-cpu-9000-2026-01-31-0123457", ["its name says commit 0123457, it was measured at 0123456789ab"]),
        ("h200-2026-01-31-0123456", ["its name says h200, it was measured on planted-cpu-9000-16-threads"]),
        ("planted-2026-13-45-0123456", ["its name says 2026-13-45, it was measured on 2026-01-31"]),
        ("planted-2026-01-31", ["its name is not <machine>-<date>-<short commit>.json"]),
        ("out", ["its name is not <machine>-<date>-<short commit>.json"]),
    ],
)
def test_the_name_of_a_file_here_agrees_with_what_is_in_it(tmp_path, name, said):
    file = parse(tmp_path / f"{name}.json", content(machine=MACHINE | {"threads": 16}))
    assert list(entries.name_faults(file)) == said


def test_a_gpu_is_known_by_its_name_and_an_unknown_commit_is_not_doubted(tmp_path):
    machine = {fact: value for fact, value in planted.H200.items() if fact != "node"}
    file = parse(tmp_path / "h200-2026-01-31-0123456.json", content(machine=machine, commit_info={}))
    assert list(entries.name_faults(file)) == []
