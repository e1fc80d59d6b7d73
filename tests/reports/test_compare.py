import json
import random
from math import exp

import pytest

from reports.compare import compare, match
from reports.files import load
from reports.output import Format
from reports.verdict import Comparison, parse_threshold
from specs.errors import UserError
from tests.reports import planted
from tests.reports.planted import measured, noisy


def names(count):
    return [planted.case(f"s.py::b[{number}]", tokens=number + 1) for number in range(count)]


def run_of(cases, seed, factor=1.0, **how):
    rng = random.Random(seed)
    return [noisy(case, 1e-3 * factor, rng, **how) for case in cases]


def verdicts(a, b, threshold=0.05):
    return [Comparison(x, y, threshold, len(a)).verdict for x, y in zip(a, b, strict=True)]


@pytest.fixture
def write(tmp_path):
    def write(name, *args, **kwargs):
        return planted.write(tmp_path / name, *args, **kwargs)

    return write


def said(capsys, a, b, format=Format.TABLE, threshold=0.05):  # noqa: A002
    compare((a, b), threshold, format, None)
    return capsys.readouterr().out


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_slow_down_of_a_tenth_is_found(seed):
    cases = names(20)
    before = run_of(cases, seed, between=0.004)
    assert verdicts(before, run_of(cases, seed + 100, 1.1, between=0.004)) == ["slower"] * 20
    assert verdicts(before, run_of(cases, seed + 100, 1 / 1.1, between=0.004)) == ["faster"] * 20


@pytest.mark.parametrize("between", [0.001, 0.02, 0.1])
def test_equal_runs_are_never_called_different(between):
    """20 comparisons of 24 cases at an error rate of 5 % a comparison; the threshold takes what chance leaves."""
    for seed in range(20):
        cases = names(24)
        found = verdicts(run_of(cases, seed, between=between), run_of(cases, 1000 + seed, between=between))
        assert set(found) <= {"same", "ambiguous"}


def test_quiet_equal_runs_are_the_same():
    cases = names(24)
    assert verdicts(run_of(cases, 1, between=0.003), run_of(cases, 2, between=0.003)) == ["same"] * 24


def test_a_change_on_the_threshold_is_ambiguous():
    cases = names(5)
    assert verdicts(run_of(cases, 1, between=0.005), run_of(cases, 2, 1.05, between=0.005)) == ["ambiguous"] * 5


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.951, "faster"), (0.953, "same"), (1.0, "same"), (1.049, "same"), (1.051, "slower")]
)
def test_the_threshold_is_the_same_factor_both_ways(ratio, verdict):
    """1 / 1.05 is 0.9524. Samples without spread, so that the interval is the ratio itself."""
    case = planted.case()
    assert verdicts([measured(case, 1.0)], [measured(case, ratio)]) == [verdict]


def test_the_bar_rises_with_the_number_of_cases():
    """One pair that is slower by itself is not, once it is one of very many."""
    case = planted.case()
    a = measured(case, tuple((1.0 * exp(0.01 * sign),) for sign in (-1, 1, -1, 1)))
    b = measured(case, tuple((1.09 * exp(0.01 * sign),) for sign in (-1, 1, -1, 1)))
    assert Comparison(a, b, 0.05, cases=1).verdict == "slower"
    assert Comparison(a, b, 0.05, cases=10_000).verdict == "ambiguous"


def test_a_single_pass_is_always_ambiguous(write, capsys):
    case = planted.case()
    a, b = write("a.json", [measured(case, 1.0)]), write("b.json", [measured(case, 3.0, passes=1)])
    assert verdicts([measured(case, 1.0)], [measured(case, 3.0, passes=1)]) == ["ambiguous"]
    text = said(capsys, a, b)
    assert "B: 1 case with a single pass, which no interval can be made from: always ambiguous" in text
    assert "3.000   single pass  ambiguous" in text
    data = json.loads(said(capsys, a, b, Format.JSON))["cases"][0]
    assert (data["ratio"], data["low"], data["high"], data["verdict"]) == (3.0, None, None, "ambiguous")


def test_json(write, capsys):
    one, two, three, four = names(4)
    a = write("a.json", [measured(one, 1.0), measured(two, 1.0), measured(three, 1.0)])
    b = write("b.json", [measured(two, 4.0), measured(one, 1.0), measured(four, 1.0)])
    data = json.loads(said(capsys, a, b, Format.JSON))
    assert [(row["case"], row["ratio"], row["verdict"]) for row in data["cases"]] == [
        (one.name, 1.0, "same"),
        (two.name, 4.0, "slower"),
    ]
    assert data["cases"][1]["low"] == data["cases"][1]["high"] == 4.0
    assert data["only_in"] == {"A": [three.name], "B": [four.name]}
    assert data["threshold"] == 0.05
    assert data["summary"] == {"faster": 0, "slower": 1, "same": 1, "ambiguous": 0, "geometric_mean_ratio": 2.0}


def test_table(write, capsys):
    one, two, three = names(3)
    a = write("a.json", [measured(one, 1e-3), measured(two, 2e-3), measured(three, 1.0)])
    b = write("b.json", [measured(one, 0.5e-3), measured(two, 2e-3)])
    text = said(capsys, a, b)
    assert [line.split() for line in text.split("\n") if line.endswith(("faster", "same"))] == [
        ["1", "1.000", "0.500", "0.500", "0.500", "–", "0.500", "faster"],
        ["2", "2.000", "2.000", "1.000", "1.000", "–", "1.000", "same"],
    ]
    assert "\nonly in A\n  s.py::b[2]\n" in text
    assert "2 cases: 1 faster, 0 slower, 1 same, 0 ambiguous (B against A)" in text
    assert "0.707 in the geometric mean" in text
    assert "faster or slower: beyond 5% with the interval widened for 2 cases" in text
    assert "\nmind\n" not in text


def test_says_what_else_differs(write, capsys):
    one, two = names(2)
    a = write("a.json", [measured(one, 1.0), measured(two, 1.0, throttled=True)])
    hot = [planted.replace(case, cache="hot", dtype="fp32") for case in (one, two)]
    b = write(
        "b.json", [planted.replace(measured(case, 1.0), clock="cuda_event") for case in hot], machine=planted.H200
    )
    text = said(capsys, a, b)
    for warning in (
        "machines differ in gpu: none → NVIDIA H200",
        "machines differ in torch: 2.13.0+cpu → 2.13.0+cu130",
        "cache differs in 2 cases, as in cold → hot",
        "dtype differs in 2 cases, as in bf16 → fp32",
        "clock differs in 2 cases, as in perf_counter → cuda_event",
        "A: 1 case throttled",
    ):
        assert f"  {warning}\n" in text
    assert "differ in node" not in text


def test_no_common_case_is_refused(write):
    one, two = names(2)
    a, b = (
        write("a.json", [measured(one, 1.0)]),
        write("b.json", [measured(two, 1.0), measured(planted.case("c"), 1.0)]),
    )
    with pytest.raises(UserError, match=r"a\.json and .*b\.json: 1 and 2 cases, none in both; run the same suites"):
        match(load(a), load(b), 0.05)


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), ("0.05", 0.05), (" 2.5% ", 0.025), ("0.5%", 0.005), (".1", 0.1)]
)
def test_thresholds(text, share):
    assert parse_threshold(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "1", "100%", "0", "0%", "-5%", "five", "", "%", "nan", "5%%", "inf"])
def test_thresholds_that_are_none(text):
    with pytest.raises(UserError) as caught:
        parse_threshold(text)
    assert str(caught.value) == f"--threshold {text!r}: not between 0 and 100%; write five percent as 5% or 0.05"
