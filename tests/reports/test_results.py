import cProfile
import json
import pstats

import pytest

from reports.results import load, parse
from specs.errors import UserError
from tests.reports import planted


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.json"


def test_an_entry_costs_few_calls(path):
    content = planted.content([planted.measured(planted.case(f"case-{i}"), 1.0) for i in range(500)])
    with cProfile.Profile() as profile:
        parse(path, content)
    assert pstats.Stats(profile).total_calls < 100 * 500


def refusal(path):
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edited(path, change):
    """A sound file with one change to its only entry."""
    content = planted.content([planted.measured(planted.case(), 1.0)])
    change(content["benchmarks"][0])
    path.write_text(json.dumps(content))
    return refusal(path)


def test_gives_back_what_was_measured(path):
    measurement = planted.measured(planted.case(), ((1.0, 2.0), (3.0,)), throttled=True, stopped_by="budget")
    planted.write(path, [measurement], not_run=[("a", "needs a GPU")], failed=[("b", "wrong\n  result")])
    file = load(path)
    assert file.measurements == (measurement,)
    assert file.not_run == {"a": "needs a GPU"}
    assert file.failed == {"b": "wrong result"}
    assert file.machine["cpu"]["brand_raw"] == "Planted CPU 9000"
    assert file.commit["id"] == "0123456789abcdef0123"
    assert (file.datetime, file.version, file.options, file.schema) == (
        "2026-01-31T12:34:56.789+00:00",
        "5.3.1",
        {"passes": 6},
        1,
    )


def test_needs_no_block_of_its_own(path):
    content = planted.content([planted.measured(planted.case(), 1.0)])
    del content["shardbench"], content["commit_info"], content["datetime"]
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    file = load(path)
    assert (len(file.measurements), file.not_run, file.failed, file.commit, file.datetime) == (1, {}, {}, {}, "")


def test_accepts_a_file_in_which_nothing_ran(path):
    file = load(planted.write(path, [], not_run=[("a", "needs a GPU")]))
    assert file.measurements == ()
    assert file.not_run == {"a": "needs a GPU"}


def test_refuses_a_missing_path(path):
    assert refusal(path) == f"{path}: no such file; give a file that --benchmark-json wrote"


def test_refuses_a_folder(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path}: a folder; give the result files in it, as in {tmp_path}/*.json"


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_refuses_an_empty_file(path, text):
    path.write_text(text)
    assert refusal(path) == f"{path}: empty; give a file that --benchmark-json wrote"


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_refuses_a_file_cut_short(path, share):
    text = json.dumps(planted.content([planted.measured(planted.case(), 1.0)]))
    path.write_text(text[: int(share * len(text))])
    assert refusal(path).startswith(f"{path}: cut short after {int(share * len(text))} bytes; give a file")


def test_refuses_a_file_cut_after_a_brace(path):
    text = json.dumps(planted.content([planted.measured(planted.case(), 1.0)]))
    path.write_text(text[: text.rindex("}", 0, -1) + 1])
    assert "cut short after" in refusal(path)


@pytest.mark.parametrize("text", [None, "", '{"benchmarks": [', '{"a": NaN}'])
def test_points_to_the_journal_where_there_is_one(path, text):
    journal = path.with_name("out.json.journal.jsonl")
    journal.write_text("{}")
    if text is not None:
        path.write_text(text)
    assert refusal(path).endswith(f"; use `python -m reports recover {journal} -o {path}`")


def test_refuses_a_journal(tmp_path):
    journal = tmp_path / "out.json.journal.jsonl"
    journal.write_text('{"run": {}}\n')
    advice = f"use `python -m reports recover {journal} -o {tmp_path / 'out.json'}`"
    assert refusal(journal) == f"{journal}: a journal, not a result file; {advice}"


@pytest.mark.parametrize("text", ["hello", "<html></html>", '{"a": 1} {"b": 2}', "{'a': 1}", "[1, 2"])
def test_refuses_what_is_not_json(path, text):
    path.write_text(text)
    message = refusal(path)
    assert message.startswith(f"{path}: not JSON (line 1, column ")
    assert message.endswith("give a file that --benchmark-json wrote")


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000])
def test_refuses_json_beyond_the_parser(path, text):
    path.write_text(text)
    assert "not JSON" in refusal(path)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_refuses_numbers_that_are_none(path, literal):
    path.write_text(f'{{"benchmarks": [], "machine_info": {{"x": {literal}}}}}')
    assert f"not JSON ({literal} is no JSON number)" in refusal(path)


def test_refuses_bytes_that_are_no_text(path):
    path.write_bytes(b"\xff\xfe\x00{")
    assert "not UTF-8 text" in refusal(path)


def test_refuses_an_unreadable_file(path, monkeypatch):
    def deny(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    path.write_text("{}")
    monkeypatch.setattr(type(path), "read_text", deny)
    assert "cannot read it ([Errno 13] Permission denied" in refusal(path)
    assert refusal(path).endswith("check the path and its permissions")


@pytest.mark.parametrize("content", [[], 3, {}, {"benchmarks": []}, {"benchmarks": {}, "machine_info": {}}])
def test_refuses_json_of_something_else(path, content):
    path.write_text(json.dumps(content))
    assert refusal(path).startswith(f"{path}: JSON, but not pytest-benchmark's; give a file that `pytest suites/")


def test_refuses_another_projects_benchmarks(path):
    path.write_text(json.dumps({"benchmarks": [], "machine_info": {"node": "x"}}))
    assert refusal(path).startswith(f"{path}: pytest-benchmark's, but not of shardbench's suites; give a file that")


def test_refuses_a_newer_schema(path):
    planted.write(path, [], machine=planted.CPU | {"shardbench_schema": 99})
    assert refusal(path) == f"{path}: of schema 99, this shardbench reads up to 1; update shardbench"


@pytest.mark.parametrize("schema", ["1", 0, 1.5])
def test_refuses_a_schema_that_is_none(path, schema):
    planted.write(path, [], machine=planted.CPU | {"shardbench_schema": schema})
    assert f"shardbench_schema is {schema!r}, no number from 1 on" in refusal(path)


def test_refuses_a_case_that_stands_in_it_twice(path):
    planted.write(path, [planted.measured(planted.case("x[a]"), 1.0)] * 2)
    assert refusal(path) == f"{path}: case x[a] stands in it 2 times; keep one of them, or run the suites again"


def test_refuses_samples_that_do_not_fill_their_passes(path):
    message = edited(path, lambda entry: entry["stats"]["data"].pop())
    assert "23 samples do not fill passes of [4, 4, 4, 4, 4, 4]" in message
    assert message.startswith(f"{path}: suites/bench_linears.py::bench_decode[planted]: ")


def test_refuses_a_file_saved_without_samples(path):
    message = edited(path, lambda entry: entry["stats"].pop("data"))
    assert message.endswith("no samples in it; save with --benchmark-json or --benchmark-save-data")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entry: entry["extra_info"].pop("flops"), "not a shardbench case"),
        (lambda entry: entry.update(extra_info=[1]), "not a shardbench case"),
        (lambda entry: entry.update(stats=None), "not a shardbench case"),
        (lambda entry: entry["extra_info"].update(pass_rounds="x"), "not a shardbench case"),
        (lambda entry: entry["extra_info"].update(flops="many"), "flops is 'many', not int"),
        (lambda entry: entry["extra_info"].update(tokens="one"), "tokens is 'one', not int | None"),
        (lambda entry: entry["extra_info"].update(dtype=None), "dtype is None, not str"),
        (lambda entry: entry["extra_info"].update(hbm_bytes=-1), "flops or bytes are below 0"),
        (lambda entry: entry["extra_info"].update(flops=10**400), "flops or bytes are below 0 or over 1e+30"),
        (lambda entry: entry["stats"]["data"].__setitem__(0, 0.0), "not a positive number of seconds"),
        (lambda entry: entry["stats"]["data"].__setitem__(0, "nan"), "not a positive number of seconds"),
    ],
)
def test_refuses_an_edited_case(path, change, said):
    assert said in edited(path, change)


def test_refuses_an_entry_that_is_no_object(path):
    path.write_text(json.dumps(planted.content([]) | {"benchmarks": ["x"]}))
    assert "a benchmark is 'x', not an object" in refusal(path)


@pytest.mark.parametrize("rows", [[1], [{"case": "a"}], 5])
def test_refuses_reasons_that_are_none(path, rows):
    path.write_text(json.dumps(planted.content([], shardbench={"not_run": rows})))
    assert "shardbench.not_run is not a list of case and reason" in refusal(path)
