import json

import pytest

from specs import journal
from specs.errors import UserError

RUN = {"shardbench_schema": 1, "options": {"tp": [8]}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "out.json.journal.jsonl"
    journal.append_record(path, "run", RUN)
    return path


def test_every_kind_is_read_back(path):
    journal.append_record(path, "benchmark", {"fullname": "a", "stats": {"data": [1.0]}})
    journal.append_record(path, "not_run", {"case": "b", "reason": "needs sm_90"})
    journal.append_record(path, "failed", {"case": "c", "reason": "NaN"})
    read = journal.read_journal(path)
    assert read.run == RUN
    assert read.benchmarks == {"a": {"fullname": "a", "stats": {"data": [1.0]}}}
    assert read.not_run == {"b": "needs sm_90"}
    assert read.failed == {"c": "NaN"}


def test_a_later_line_of_a_case_replaces_the_earlier_one(path):
    for data in ([1.0], [1.0, 2.0]):
        journal.append_record(path, "benchmark", {"fullname": "a", "stats": {"data": data}})
    assert journal.read_journal(path).benchmarks["a"]["stats"]["data"] == [1.0, 2.0]


@pytest.mark.parametrize("torn", ['{"benchmark": {"fulln', '{"benchmark": {}}', "{", "null"])
def test_a_last_line_cut_short_is_left_out(path, torn):
    journal.append_record(path, "benchmark", {"fullname": "a"})
    with path.open("a") as stream:
        stream.write(torn)
    assert list(journal.read_journal(path).benchmarks) == ["a"]


def test_the_last_word_on_a_case_counts(path):
    for kind, record in (
        ("failed", {"case": "a", "reason": "out of memory"}),
        ("benchmark", {"fullname": "a"}),
        ("benchmark", {"fullname": "b"}),
        ("failed", {"case": "b", "reason": "out of memory"}),
    ):
        journal.append_record(path, kind, record)
    read = journal.read_journal(path)
    assert (list(read.benchmarks), list(read.failed)) == (["a"], ["b"])


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused(path, constant):
    with path.open("a") as stream:
        stream.write(f'{{"benchmark": {{"fullname": "a", "extra_info": {{"noise": {constant}}}}}}}\n')
    journal.append_record(path, "benchmark", {"fullname": "b"})
    with pytest.raises(UserError, match=f"{constant} is no number"):
        journal.read_journal(path)


def test_going_on_after_a_torn_line_loses_nothing(path):
    journal.append_record(path, "benchmark", {"fullname": "a"})
    with path.open("a") as stream:
        stream.write('{"benchmark": {"fulln')
    for case in "bc":
        journal.append_record(path, "benchmark", {"fullname": case})
    assert list(journal.read_journal(path).benchmarks) == ["a", "b", "c"]


def test_damage_before_the_last_line_is_refused(path):
    with path.open("a") as stream:
        stream.write("{\n")
    journal.append_record(path, "benchmark", {"fullname": "a"})
    with pytest.raises(UserError, match="line 2 is not a journal line"):
        journal.read_journal(path)


@pytest.mark.parametrize("text", ["", json.dumps({"benchmark": {"fullname": "a"}}) + "\n"])
def test_a_journal_without_a_run_line_is_refused(tmp_path, text):
    path = tmp_path / "journal.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match="no `run` line"):
        journal.read_journal(path)


@pytest.mark.parametrize("text", ["garbage", '{"run": {"shardbench_schema": "one"}}', '{"run": {}}', "[1, 2]"])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "journal.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match="line 1 is not a journal line"):
        journal.read_journal(path)


def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal.append_record(path, "run", {"shardbench_schema": 99})
    with pytest.raises(UserError, match="schema 99, this shardbench reads up to 1; update"):
        journal.read_journal(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read the journal"):
        journal.read_journal(tmp_path / "none.jsonl")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read the journal"):
        journal.read_journal(path)


def test_a_place_that_cannot_be_written_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"cannot write the journal .*--resume"):
        journal.append_record(tmp_path / "missing folder" / "journal.jsonl", "run", RUN)


def test_nan_never_reaches_the_file(path):
    before = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append_record(path, "benchmark", {"fullname": "a", "noise": float("nan")})
    assert path.read_text() == before


def test_other_alphabets_survive(path):
    journal.append_record(path, "failed", {"case": "‖Δ‖", "reason": "zu groß\u2028ja"})
    assert journal.read_journal(path).failed == {"‖Δ‖": "zu groß\u2028ja"}
