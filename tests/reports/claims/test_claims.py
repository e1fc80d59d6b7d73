"""The ledger through the command line: what it says with and without evidence, and what a gate makes of it."""

import json
import re

import pytest

from reports.__main__ import main
from reports.claims.registry import CLAIMS, TIMED_CLAIMS
from tests.reports import planted
from tests.reports.planted_sweeps import (
    PUBLISHED,
    by_frameworks,
    ceilings,
    experts,
    ratios_of,
    roofline,
    seeded,
    series,
)

VERDICTS = {"HOLDS", "REFUTED", "HOLDS_IF", "UNDERPOWERED", "NOT_MEASURED"}
CONTRACT = {
    "id": str,
    "statement": str,
    "verdict": str,
    "value": int | float | None,
    "low": int | float | None,
    "high": int | float | None,
    "unit": str,
    "condition": str,
    "gpu": str | None,
    "dtype": str | None,
    "architecture": str | None,
    "cases": list,
    "provenance": str,
}
RATIO = "tokens-125-vs-1000"


def ran(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(["claims", *map(str, arguments)])
    return caught.value.code or 0


@pytest.fixture
def said(capsys):
    """The claims' rows in JSON."""

    def said(*arguments):
        assert ran(*arguments, "--format", "json") == 0
        return json.loads(capsys.readouterr().out)

    return said


@pytest.fixture
def write(tmp_path):
    def write(name, measurements, machine=PUBLISHED):
        return planted.write(tmp_path / name, measurements, machine)

    return write


@pytest.fixture
def measured(write):
    """A whole sweep with its ceilings: the knee lies at 230 tokens."""
    found = series(roofline(230, 100e-6, 2e-6), rng=seeded(1), between=0.005)
    return write("measured.json", [*found, *ceilings(10e9, 2e12, launch=2e-6)], planted.CPU)


@pytest.fixture
def slow(write):
    """Published: 1000 dense tokens take four times as long as 125."""
    return write("slow.json", by_frameworks([roofline(240), roofline(260)]))


@pytest.fixture
def mixed(write):
    """Published: dense as above, experts within a quarter."""
    return write("mixed.json", [*ratios_of(3.0, 3.2), *experts("balanced", 1.0, 1.1)])


def overall(rows):
    return [row for row in rows if row["scope"] == "overall"]


def test_without_files_arithmetic_is_judged_and_the_rest_is_not_measured(said):
    rows = {row["id"]: row for row in said()}
    assert len(rows) == len(CLAIMS)
    for claim in CLAIMS:
        if claim in TIMED_CLAIMS:
            assert rows[claim.id]["verdict"] == "NOT_MEASURED"
            suite = "bench_tp_vs_pp" if claim.kind == "whole" else "bench_token_sweep"
            assert suite in rows[claim.id]["condition"]
        else:
            assert rows[claim.id]["verdict"] == claim.expected
            assert rows[claim.id]["value"] is not None


def test_json_keeps_to_the_contract(said, measured, slow, mixed):
    rows = said(measured, slow, mixed)
    for row in rows:
        assert row.keys() >= CONTRACT.keys()
        for key, kind in CONTRACT.items():
            assert isinstance(row[key], kind), key
        assert row["verdict"] in VERDICTS
        assert row["architecture"] in ("dense", "whole", "moe", None)
        assert (row["low"] is None) == (row["high"] is None)
        assert row["low"] is None or row["low"] <= row["value"] <= row["high"]
        assert row["condition"] or row["verdict"] in ("HOLDS", "REFUTED")
    assert {row["id"] for row in overall(rows)} == {claim.id for claim in CLAIMS}
    for claim in CLAIMS:
        assert next(row for row in rows if row["id"] == claim.id)["scope"] == "overall"


def test_measured_claims_name_machine_and_cases(said, measured):
    row = next(row for row in said(measured) if row["id"] == "knee")
    assert (row["verdict"], row["value"]) == ("HOLDS", pytest.approx(230, rel=0.03))
    assert (row["gpu"], row["dtype"], row["architecture"]) == ("Planted CPU 9000", "bf16", "dense")
    assert (row["provenance"], len(row["cases"])) == ("measured", 17)


@pytest.mark.parametrize(
    "measurements",
    [
        [],
        [planted.measured(planted.case(tokens=2), 1.0), *planted.ceilings()],
        series(roofline(200), (64,)),
        [*series(roofline(200), cache="hot"), *ceilings(10e9, 2e12, 2e-6)],
    ],
    ids=["nothing", "no sweep", "one point", "hot"],
)
def test_nothing_holds_for_want_of_data(said, write, measurements):
    rows = said(write("poor.json", measurements, planted.CPU))
    found = {row["id"]: row["verdict"] for row in rows if row["id"] in {claim.id for claim in TIMED_CLAIMS}}
    assert len(found) == len(TIMED_CLAIMS)
    assert set(found.values()) <= {"NOT_MEASURED", "UNDERPOWERED"}


@pytest.mark.parametrize(
    "gates",
    [
        ["tp-bytes-layer"],
        ["tp-bytes-layer=HOLDS", "allreduce-count"],
        ["tp-bytes-layer, allreduce-count=REFUTED,,"],
        [RATIO],
        [f"{RATIO}=REFUTED"],
        [f"{RATIO}/dense=refuted"],
        [f"{RATIO}/moe=HOLDS"],
        [f"{RATIO}=REFUTED,{RATIO}/moe=HOLDS", "activations=holds-if"],
        ["knee=UNDERPOWERED"],
    ],
)
def test_an_open_gate(gates, mixed, capsys):
    options = [word for gate in gates for word in ("--gate", gate)]
    assert ran(mixed, *options, "--format", "json") == 0
    captured = capsys.readouterr()
    assert (len(json.loads(captured.out)) > len(CLAIMS), captured.err) == (True, "")


@pytest.mark.parametrize(
    ("gate", "line"),
    [
        ("tp-bytes-layer=REFUTED", "gate: tp-bytes-layer: HOLDS, not REFUTED"),
        (f"{RATIO}=HOLDS", f"gate: {RATIO}: REFUTED, not HOLDS, on h200_sxm, dense layers in bf16"),
        (f"{RATIO}/moe=REFUTED", f"gate: {RATIO}: HOLDS, not REFUTED, on h200_sxm, moe layers in bf16"),
        ("tp-bytes-layer/moe=HOLDS", "gate: tp-bytes-layer: no finding on moe layers, so not HOLDS"),
    ],
)
def test_a_closed_gate_is_a_line_and_the_report_is_written_all_the_same(gate, line, mixed, capsys):
    assert ran(mixed, "--gate", f"allreduce-count,{gate}", "--format", "json") == 1
    captured = capsys.readouterr()
    assert captured.err == f"{line}\n"
    assert {row["id"] for row in json.loads(captured.out)} == {claim.id for claim in CLAIMS}


@pytest.mark.parametrize("claim", TIMED_CLAIMS, ids=lambda claim: claim.id)
@pytest.mark.parametrize("verdict", ["HOLDS", "HOLDS_IF", "REFUTED", "UNDERPOWERED"])
def test_a_gate_on_a_claim_without_evidence_is_closed(claim, verdict, capsys):
    assert ran("--gate", f"{claim.id}={verdict}") == 1
    assert f"gate: {claim.id}: NOT_MEASURED, not {verdict}" in capsys.readouterr().err


def test_experts_are_no_evidence_for_dense_layers(write, capsys):
    path = write("moe.json", experts("balanced", 3.0, 3.2))
    assert ran(path, "--gate", f"{RATIO}/moe=REFUTED") == 0
    assert ran(path, "--gate", f"{RATIO}=REFUTED") == 1
    assert "no finding on dense layers, so not REFUTED" in capsys.readouterr().err


def test_a_gate_is_closed_by_any_one_file(write, slow, capsys):
    """All formats and machines must agree, and each that does not is a line."""
    others = [write(f"{dtype}.json", ratios_of(1.0, 1.1, dtype=dtype)) for dtype in ("fp8", "fp16")]
    assert ran(slow, "--gate", RATIO) == 0
    capsys.readouterr()
    assert ran(slow, *others, "--gate", RATIO) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["fp8", "fp16"]


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("tokens-125-vs-100", f"unknown claim 'tokens-125-vs-100'; did you mean {RATIO}?"),
        (f"{RATIO}=MAYBE", "no verdict is called 'MAYBE'; known: HOLDS, REFUTED, "),
        (f"{RATIO}/sparse=HOLDS", "no kind of layer is called 'sparse'; known: dense, whole, moe"),
        ("knee", "no verdict is expected everywhere; name one, as in knee=HOLDS"),
        ("", "names no claim"),
        (" ,", "names no claim"),
        ("tp-bytes-layer,knee", "--gate knee: no verdict is expected"),
        (f"{RATIO}/moe", f"{RATIO}/moe"),  # the ledger's verdicts are those on dense layers
    ],
)
def test_a_gate_that_is_none_is_one_line_and_exit_code_2(gate, said, slow, capsys):
    assert ran(slow, "--gate", gate) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_single_linears_are_shown_with_all(mixed, capsys):
    assert ran(mixed) == 0
    short = capsys.readouterr().out
    assert ran(mixed, "--all") == 0
    long = capsys.readouterr().out
    assert short.startswith(f"{RATIO}  ")
    assert short.partition("--all")[0].count("h200_sxm") == 2  # dense and experts
    assert "single linears: --all" in short
    assert re.search(r"llama-3-70b +o tp8 +REFUTED +3\.10 +3\.00 – 3\.20 +published", long)
    assert "experts tp1 balanced" in long
    assert "--all" not in long


def test_markdown_into_a_file(mixed, tmp_path, capsys):
    to = tmp_path / "claims.md"
    assert ran(mixed, "--format", "markdown", "-o", to) == 0
    assert capsys.readouterr().out == ""
    text = to.read_text()
    assert [f"## {claim.id}" in text for claim in TIMED_CLAIMS] == [True] * len(TIMED_CLAIMS)
    assert "## arithmetic" in text
    assert re.search(r"^\| *h200_sxm *\| *dense *\| *bf16 *\| *REFUTED *\| *3\.10 ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("folder", "a folder; give the result files in it"),
        ('{"a": 1}', "JSON, but not pytest-benchmark's"),
        ('{"benchmarks": [], "machine_info": {}}', "not of shardbench's suites"),
        ("[1, 2", "not JSON"),
    ],
)
def test_a_file_that_is_none_is_one_line_and_exit_code_2(text, said, tmp_path, slow, capsys):
    path = tmp_path / "other.json"
    if text == "folder":
        path.mkdir()
    elif text:
        path.write_text(text)
    assert ran(slow, path, "--gate", RATIO) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {path}: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
