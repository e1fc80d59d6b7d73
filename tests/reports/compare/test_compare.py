"""What is said of two files, and of more."""

import json
import random
from math import exp

import pytest

from reports.compare.command import compare
from reports.compare.comparison import compare_files
from reports.compare.verdict import CaseComparison, parse_threshold
from reports.output import Format
from reports.results import load
from specs import statistics
from specs.errors import UserError
from tests.reports import planted
from tests.reports.planted import measured, noisy
from tests.reports.planted_sweeps import file


def names(count):
    return [planted.case(f"s.py::b[{number}]", tokens=number + 1) for number in range(count)]


def run_of(cases, seed, factor=1.0, **how):
    rng = random.Random(seed)
    return [noisy(case, 1e-3 * factor, rng, **how) for case in cases]


def verdicts(a, b, threshold=0.05):
    return [pair.verdict for pair in compare_files(file(a), file(b), threshold).pairs]


def judged(a, b, confidence):
    ratio = statistics.log_ratio(a.seconds, b.seconds)
    return CaseComparison(a=a, b=b, log_ratio=ratio, threshold=0.05, confidence=confidence).verdict


@pytest.fixture
def write(tmp_path):
    def write(name, *args, **kwargs):
        return planted.write(tmp_path / name, *args, **kwargs)

    return write


def said(capsys, *paths, format=Format.TABLE, threshold=0.05, **how):  # noqa: A002
    compare(paths, threshold, format, None, **how)
    return capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
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


def test_a_sure_change_short_of_the_threshold_is_not_called():
    """4.5 % is told from nothing, and does not count at 5 %."""
    cases = names(5)
    found = verdicts(run_of(cases, 1, between=0.001), run_of(cases, 2, 1.045, between=0.001))
    assert "slower" not in found
    assert "same" in found


def test_a_change_beyond_the_threshold_by_luck_is_not_called():
    """6 % over, give or take 4 %: it may be as well be 2 %, which is less than half of 5 %."""
    case = planted.case()
    a = measured(case, tuple((exp(0.04 * sign),) for sign in (-1, 1, -1, 1, -1, 1)))
    b = measured(case, tuple((1.06 * exp(0.04 * sign),) for sign in (-1, 1, -1, 1, -1, 1)))
    assert verdicts([a], [b]) == ["ambiguous"]


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.951, "faster"), (0.953, "same"), (1.0, "same"), (1.049, "same"), (1.051, "slower")]
)
def test_the_threshold_is_the_same_factor_both_ways(ratio, verdict):
    """1 / 1.05 is 0.9524. Samples without spread, so that the interval is the ratio itself."""
    case = planted.case()
    assert verdicts([measured(case, 1.0)], [measured(case, ratio)]) == [verdict]


def test_a_higher_confidence_asks_for_more():
    """Four passes 1 % off either way, so 8.6 % are 10.6 errors: beyond 2.5 % at 95 %, not at the bar of 10,000."""
    case = planted.case()
    a = measured(case, tuple((1.0 * exp(0.01 * sign),) for sign in (-1, 1, -1, 1)))
    b = measured(case, tuple((1.09 * exp(0.01 * sign),) for sign in (-1, 1, -1, 1)))
    assert judged(a, b, 0.95) == "slower"
    assert judged(a, b, 1 - 0.05 / 10_000) == "ambiguous"


def test_without_a_threshold_the_files_say_what_they_can_tell():
    """Six passes that differ by 0.3 % tell 1.5 %; those that differ by 5 % do not, and 5 % is asked for."""
    cases = names(12)
    fine = compare_files(file(run_of(cases, 1, between=0.003)), file(run_of(cases, 2, between=0.003)))
    coarse = compare_files(file(run_of(cases, 1, between=0.05)), file(run_of(cases, 2, between=0.05)))
    assert (fine.threshold, coarse.threshold) == (0.015, 0.05)
    assert fine.detectable < 0.03
    assert coarse.detectable > 0.05


def test_what_could_be_seen_is_what_would_be_called():
    """A slow-down a little over the one said to be the smallest is called, one a little below is not."""
    case = planted.case()
    a = measured(case, tuple((exp(0.01 * sign),) for sign in (-1, 1, -1, 1)))
    (pair,) = compare_files(file([a]), file([a]), 0.01).pairs
    for factor, verdict in ((1.001, "slower"), (0.999, "ambiguous")):
        slower = tuple((sample * (1 + pair.detectable) * factor,) for (sample,) in a.seconds)
        assert verdicts([a], [measured(case, slower)], 0.01) == [verdict]


def test_a_single_pass_is_always_ambiguous(write, capsys):
    case = planted.case()
    a, b = write("a.json", [measured(case, 1.0)]), write("b.json", [measured(case, 3.0, passes=1)])
    text = said(capsys, a, b)
    assert "B: 1 case with a single pass, which no interval can be made from: always ambiguous; measure with" in text
    assert "3.000   single pass  ambiguous" in text
    data = json.loads(said(capsys, a, b, format=Format.JSON))["cases"][0]
    assert (data["ratio"], data["low"], data["high"], data["verdict"]) == (3.0, None, None, "ambiguous")


def test_json(write, capsys):
    one, two, three, four = names(4)
    a = write("a.json", [measured(one, 1.0), measured(two, 1.0), measured(three, 1.0)])
    b = write("b.json", [measured(two, 4.0), measured(one, 1.0), measured(four, 1.0)])
    data = json.loads(said(capsys, a, b, format=Format.JSON))
    assert [(row["case"], row["ratio"], row["verdict"]) for row in data["cases"]] == [
        (one.name, 1.0, "same"),
        (two.name, 4.0, "slower"),
    ]
    assert data["cases"][1]["low"] == data["cases"][1]["high"] == 4.0
    assert {"explained_by", "unexplained"} < set(data["cases"][0])
    assert data["only_in"] == {"A": [three.name], "B": [four.name]}
    assert data["threshold"] == 0.05
    summary = {"faster": 0, "slower": 1, "same": 1, "ambiguous": 0, "geometric_mean_ratio": 2.0}
    assert summary.items() <= data["summary"].items()


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
    assert "faster or slower: by over 5%, surely over half of it, for 2 cases at once" in text
    assert "\nmind\n" not in text


def test_several_files_stand_beside_the_first(write, capsys):
    one, two, three = names(3)
    a = write("a.json", [measured(one, 1.0), measured(two, 1.0)])
    b = write("b.json", [measured(one, 2.0), measured(three, 1.0)])
    c = write("c.json", [measured(one, 0.5), measured(two, 1.0), measured(three, 1.0)])
    data = json.loads(said(capsys, a, b, c, format=Format.JSON))
    assert [(row["file"], row["case"], row["verdict"]) for row in data["cases"]] == [
        ("B", one.name, "slower"),
        ("C", one.name, "faster"),
        ("C", two.name, "same"),
    ]
    assert data["only_in"] == {"A": [], "B": [], "C": []}
    assert data["not_in"] == {"A": [three.name], "B": [two.name], "C": []}
    text = said(capsys, a, b, c)
    row = next(line for line in text.split("\n") if line.endswith("faster"))
    assert row.split() == ["1", "1.00", "2.000", "slower", "0.500", "faster"]
    assert "\nnot in A\n  s.py::b[2]\n" in text


def test_a_long_table_keeps_what_changed(write, capsys):
    cases = names(60)
    a = write("a.json", [measured(case, 1.0) for case in cases])
    b = write("b.json", [measured(case, 2.0 if case is cases[47] else 1.0) for case in cases])
    text = said(capsys, a, b)
    rows = [line for line in text.split("\n") if line.endswith(("same", "slower"))]
    assert len(rows) == 40
    assert sum(row.endswith("slower") for row in rows) == 1
    assert "20 cases that changed less left out: --all shows them" in text
    assert said(capsys, a, b, every=True).count(" same\n") == 59


def test_says_what_else_differs(write, capsys):
    one, two = names(2)
    a = write("a.json", [measured(one, 1.0), measured(two, 1.0, throttled=True)])
    hot = [planted.replace(case, cache="hot") for case in (one, two)]
    b = write(
        "b.json", [planted.replace(measured(case, 1.0), clock="cuda_event") for case in hot], machine=planted.H200
    )
    text = said(capsys, a, b)
    for warning in (
        "machines differ in gpu: none → NVIDIA H200",
        "machines differ in torch: 2.13.0+cpu → 2.13.0+cu130",
        "cache differs in 2 cases, as in cold → hot",
        "clock differs in 2 cases, as in perf_counter → cuda_event",
        "A: 1 case throttled",
    ):
        assert f"  {warning}\n" in text
    assert "differ in node" not in text


def test_cases_of_one_name_and_other_work_are_not_compared(write, capsys):
    one, two = names(2)
    a = write("a.json", [measured(one, 1.0), measured(two, 1.0)])
    b = write("b.json", [measured(planted.replace(one, dtype="fp32"), 1.0), measured(two, 1.0)])
    data = json.loads(said(capsys, a, b, format=Format.JSON))
    assert [row["case"] for row in data["cases"]] == [two.name]
    assert data["unlike"] == {"B": {one.name: "dtype bf16 → fp32"}}
    assert any("1 case of one name but not of the same work, not compared" in line for line in data["warnings"])


def test_what_a_profile_does_not_know_of_a_case_does_not_part_it_from_its_run():
    one = planted.case()
    unknown = planted.replace(one, op="unknown", dtype="unknown", model=None, n=None)
    (pair,) = compare_files(file([measured(one, 1.0)]), file([measured(unknown, 1.0)])).pairs
    assert pair.verdict == "same"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"model": "tiny"},
            r"model llama-3-70b in the one and tiny in the other; measure both with the same --model",
        ),
        ({"dtype": "fp32"}, r"dtype bf16 in the one and fp32 in the other; measure both with the same --dtype"),
        (
            {"implementation": "cuda"},
            r"impl torch in the one and cuda in the other; measure both with the same --impl",
        ),
        ({"question": "prefill"}, r"question decode in the one and prefill in the other; run the same suites"),
        ({}, r"run the same suites with the same options"),
    ],
)
def test_no_common_case_is_refused_with_what_the_files_differ_in(write, changes, why):
    one, two = names(2)
    a = write("a.json", [measured(one, 1.0)])
    two = planted.replace(two, tokens=one.tokens, **changes)
    b = write("b.json", [measured(two, 1.0), measured(planted.replace(two, name="c"), 1.0)])
    with pytest.raises(UserError, match=rf"a\.json and .*b\.json: 1 and 2 cases, none in both[:;] {why}"):
        compare_files(load(a), load(b))


def test_files_of_the_same_names_and_no_equal_work_are_refused():
    one = planted.case()
    a, b = file([measured(one, 1.0)]), file([measured(planted.replace(one, model="tiny"), 1.0)])
    with pytest.raises(UserError, match=r"none is the same work, as .*: model llama-3-70b → tiny"):
        compare_files(a, b)


def test_one_file_is_too_few(write):
    with pytest.raises(UserError, match="1 files given; give the baseline and 1 to 25 others"):
        compare((write("a.json", [measured(planted.case(), 1.0)]),), None, Format.TABLE, None)


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), ("0.05", 0.05), (" 2.5% ", 0.025), ("0.5%", 0.005), (".1", 0.1)]
)
def test_thresholds(text, share):
    assert parse_threshold(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "1", "100%", "0", "0%", "-5%", "five", "", "%", "nan", "5%%", "inf"])
def test_thresholds_that_are_none(text):
    with pytest.raises(UserError) as caught:
        parse_threshold(text, "--gate")
    assert str(caught.value) == f"--gate {text!r}: not between 0 and 100%; write five percent as 5% or 0.05"


def test_published_times_have_the_range_over_frameworks():
    """Three frameworks: 0.70, 0.72 and 0.80 of the time; one alone has no interval."""

    def of(seconds, framework, **changes):
        case = planted.case(f"p::o[{framework}{changes or ''}]", implementation=framework, **changes)
        return measured(case, seconds, passes=1, framework=framework, provenance="published")

    frameworks = {"vllm": 0.70, "sglang": 0.72, "trtllm": 0.80}
    a = [of(1.0, name) for name in frameworks] + [of(1.0, "vllm", tokens=16)]
    b = [of(ratio, name) for name, ratio in frameworks.items()] + [of(0.7, "vllm", tokens=16)]
    found = compare_files(file(a, planted.H200), file(b, planted.H200)).pairs
    assert [pair.interval for pair in found[:3]] == [pytest.approx((0.70, 0.80))] * 3
    assert [pair.verdict for pair in found] == ["faster"] * 3 + ["ambiguous"]
    hot = [planted.replace(one, maybe_hot=True) for one in b]
    assert {pair.verdict for pair in compare_files(file(a, planted.H200), file(hot, planted.H200)).pairs} == {
        "ambiguous"
    }


def test_the_geometric_mean_of_a_question_moves_with_its_passes():
    """What slows a pass slows all its cases: their mean is no surer than the passes, however many cases there are."""
    rng = random.Random(5)
    shifts = [[rng.gauss(0, 0.02) for _ in range(6)] for _ in range(2)]

    def side(shift):
        return file([measured(case, tuple((exp(one),) for one in shift)) for case in names(100)])

    (group,) = compare_files(side(shifts[0]), side(shifts[1])).groups
    alone = statistics.ratio_interval(*([(exp(one),) for one in shift] for shift in shifts))
    assert group.interval == pytest.approx(alone)


def test_times_in_a_graph_and_eager_are_no_range_of_each_other():
    """One framework's graph gained, both their eager launches did not: neither range is of both."""

    def of(seconds, framework, launch):
        case = planted.case(f"p::o[{framework}-{launch}]", implementation=framework, launch=launch)
        return measured(case, seconds, passes=1, framework=framework, provenance="published")

    cases = [("vllm", "eager"), ("sglang", "eager"), ("sglang", "graph")]
    a = [of(1.0, *how) for how in cases]
    b = [of(seconds, *how) for seconds, how in zip((1.0, 1.02, 0.1), cases, strict=True)]
    found = compare_files(file(a, planted.H200), file(b, planted.H200)).pairs
    assert [pair.interval for pair in found] == [pytest.approx((1.0, 1.02))] * 2 + [None]


def test_the_ratio_lies_in_its_interval():
    """Passes of two kinds, a third of them slow: the ratio of the medians is 1, that of the passes' means is not."""
    case = planted.case()
    a = measured(case, [(1.0,) * 4] * 6)
    b = measured(case, [(1.0,) * 40] * 4 + [(1.5,) * 4] * 2)
    (pair,) = compare_files(file([a]), file([b]), 0.02).pairs
    assert pair.interval[0] <= pair.ratio <= pair.interval[1]
    assert pair.verdict == "ambiguous"


def test_a_profile_is_named(write, capsys):
    a = write("a.json", [measured(planted.case(), 1.0)])
    b = write("b.json", [measured(planted.case(), 1.0)], machine=planted.CPU | {"profiler": "Nsight Systems 2024.6"})
    assert "B was timed with a profiler attached: Nsight Systems 2024.6" in said(capsys, a, b)
    with pytest.raises(UserError, match=r"--gate: .*b\.json was timed with a profiler attached; give the run itself"):
        compare((a, b), None, Format.TABLE, None, limit=0.05)


def test_long_lists_of_what_one_file_has_are_cut(write, capsys):
    cases = names(30)
    a, b = write("a.json", [measured(case, 1.0) for case in cases]), write("b.json", [measured(cases[0], 1.0)])
    text = said(capsys, a, b)
    assert "… and 9 more: --all names them" in text
    assert "s.py::b[29]" not in text
    assert "s.py::b[29]" in said(capsys, a, b, every=True)
