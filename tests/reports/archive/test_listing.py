import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reports.archive import entries
from reports.archive.index import show_folder
from reports.output import Format
from specs.errors import UserError
from tests.reports import planted
from tests.reports.tp_vs_pp import planted_steps

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path):
    """A linear at two batches on an H200, and a whole model both ways on a CPU."""
    slow = planted.measured(planted.case("s.py::b[1]"), ((0.2,), (0.2,), (0.2,)))
    fast = planted.measured(planted.case("s.py::b[8]", tokens=8), ((0.125,), (0.125,)))
    planted.write(tmp_path / "b.json", [slow, fast, *planted.ceilings()], machine=planted.H200)
    tp, pp = planted_steps.step(ms=[8.0, 8.2, 8.4]), planted_steps.step(planted_steps.SYNC, ms=[16.0, 16.4, 16.8])
    planted.write(tmp_path / "a.json", [tp, pp], datetime="2025-12-31T00:00:00+00:00")
    return tmp_path


def listed(folder, capsys, form=Format.JSON):
    show_folder(form, None, folder)
    said = capsys.readouterr().out
    return json.loads(said) if form is Format.JSON else said


def test_says_of_each_file_where_when_how_much_and_what(folder, capsys):
    a, b = listed(folder, capsys)["files"]
    assert [Path(one["file"]).name for one in (a, b)] == ["a.json", "b.json"]  # by date
    assert (b["machine"], b["commit"], b["cases"]) == (
        "NVIDIA H200, 132 SMs, 60 MiB L2, 139.7 GiB memory",
        "0123456789abcdef0123",
        4,
    )
    assert (b["least_passes"], b["most_passes"], b["models"], b["tp"], b["pp"]) == (2, 6, ["llama-3-70b"], [8], [1])
    assert b["questions"] == ["decode", "ceilings"]
    assert (a["questions"], a["whole_models"], b["whole_models"]) == (["TP against PP"], True, False)


def test_its_figures_are_those_of_the_file(folder, capsys):
    """1e9 bytes at 10e9 B/s take 0.1 s at least: 50 % and 80 % of what was measured, the middle 65 %; 8 GB/s."""
    a, b = listed(folder, capsys)["files"]
    assert {row["question"]: row["text"] for row in b["headlines"]} == {
        "decode": "2 cases, 50% to 80% of floor (65% in the middle), reading at up to 8.00 GB/s",
        "ceilings": "read 10.0 GB/s, bf16 100 GFLOP/s",
    }
    assert "TP 2 is faster than PP 2 at a batch of 1 (2.00 times)" in a["headlines"][0]["text"]


def test_growth_times_and_bandwidths_are_worked_out(tmp_path, capsys):
    """A sweep from 1 ms to 5 ms; a layer of 2 ms; 1 MB sent in 1 ms by two ranks: 1 GB/s, as busbw of two too."""
    sweep = [
        planted.measured(planted.case(f"s.py::s[{tokens}]", question="sweep", tokens=tokens), seconds)
        for tokens, seconds in ((1, 1e-3), (1000, 5e-3))
    ]
    whole = planted.measured(planted.case("s.py::l", question="layer", op="layer", layer="layer"), 2e-3)
    facts = {"flops": 0, "hbm_bytes": 0, "message_bytes": 10**6, "ranks": 2, "implementation": "gloo", "layer": None}
    sent = planted.case("s.py::r", question="communication", op="all_reduce", wire_bytes_sent_per_rank=10**6, **facts)
    planted.write(tmp_path / "a.json", [*sweep, whole, planted.measured(sent, 1e-3)])
    (one,) = listed(tmp_path, capsys)["files"]
    assert {row["question"]: row["text"] for row in one["headlines"]} == {
        "sweep": "2 cases, 1000 tokens take 5.00 times as long as 1",
        "layer": "torch, eager: 2.00 ms at 1 token",
        "communication": "all_reduce from 1.00 ms, busbw up to 1.00 GB/s",
    }


def test_what_others_measured_is_called_published_and_held_against_the_datasheet(tmp_path, capsys):
    """1e9 bytes at 4.8e12 B/s take 208.3 us, half of 416.7 us."""
    case = planted.measured(planted.case(), 416.6666e-6, passes=1, provenance="published")
    planted.write(tmp_path / "a.json", [case], machine=planted.H200 | {"source": "tables of the vendor"})
    (one,) = listed(tmp_path, capsys)["files"]
    assert one["headlines"] == [{"question": "decode", "text": "published: 1 case, 50% of the datasheet's floor"}]
    assert "one figure a point and no spread: published, not measured here" in listed(tmp_path, capsys, Format.TABLE)


@pytest.mark.parametrize("form", [Format.TABLE, Format.MARKDOWN])
def test_a_damaged_file_gets_a_line_and_the_others_are_shown(folder, capsys, form):
    (folder / "c.json").write_text('{"benchmarks": [')
    (folder / "d.json").write_text("[]")
    said = listed(folder, capsys, form)
    assert "a.json" in said
    assert "b.json" in said
    assert "cut short after 16 bytes" in said
    assert "JSON, but not pytest-benchmark's" in said
    assert len(listed(folder, capsys)["damaged"]) == 2


def test_only_damaged_files_are_lines_too(tmp_path, capsys):
    (tmp_path / "c.json").write_text("{")
    assert "cut short" in listed(tmp_path, capsys, Format.TABLE)


def test_a_folder_that_is_not_there_or_has_no_file_is_a_line(tmp_path):
    with pytest.raises(UserError, match="no result file in it; give one that"):
        show_folder(Format.TABLE, None, tmp_path)
    with pytest.raises(UserError, match="no such folder; give result files, as in"):
        show_folder(Format.TABLE, None, tmp_path / "none")


def test_is_what_show_says_without_a_file_wherever_one_stands(tmp_path):
    command = [sys.executable, "-m", "reports", "show"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=True, env=environment)
    for path in entries.result_paths(entries.DATA_FOLDER):
        assert f"\nreports/data/{path.name}\nmachine " in done.stdout
