"""`--gate`: what stops CI, and what must not be taken for a pass."""

import random

import pytest

from tests.reports import planted
from tests.reports.planted import measured, noisy
from tests.reports.run_reports import run_reports

CASES = [planted.case(f"s::c[{n}]", tokens=n + 1) for n in range(12)]


@pytest.fixture
def write(tmp_path):
    def write(name, factors=(1.0,) * 12, seed=0, **how):
        rng = random.Random(f"{name}{seed}")
        made = [noisy(case, factor, rng, between=0.003) for case, factor in zip(CASES, factors, strict=True)]
        return planted.write(tmp_path / name, made, **how)

    return write


def test_equal_files_pass(write, capsys):
    assert run_reports("compare", write("a.json"), write("b.json"), "--gate", "5%") == 0
    assert "12 cases: 0 faster, 0 slower" in capsys.readouterr().out


def test_a_case_that_is_slower_by_more_fails_and_is_named(write, capsys):
    factors = [1.0] * 11 + [1.08]
    assert run_reports("compare", write("a.json"), write("b.json", factors), "--gate", "5%") == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("gate: ")
    assert "s::c[11]: 1.0" in line
    assert "b.json" in line
    assert "by question" in said.out  # the report is written all the same


@pytest.mark.parametrize("factor", [1.03, 1 / 1.2])
def test_what_is_slower_by_less_or_faster_passes(write, factor):
    assert run_reports("compare", write("a.json"), write("b.json", [factor] * 12), "--gate", "5%") == 0
    assert run_reports("compare", write("a.json"), write("b.json", [factor] * 12), "--gate", "1%") == (
        1 if factor > 1 else 0
    )


def test_the_gate_has_its_own_threshold(write):
    """What counts as a change in the table does not decide whether the gate closes."""
    arguments = ["compare", write("a.json"), write("b.json", [1.08] * 12)]
    assert run_reports(*arguments, "--threshold", "20%", "--gate", "5%") == 1
    assert run_reports(*arguments, "--threshold", "1%", "--gate", "20%") == 0


def test_a_case_that_fails_now_does_not_vanish(write, tmp_path, capsys):
    b = planted.write(
        tmp_path / "b.json", [measured(case, 1.0) for case in CASES[1:]], failed=[(CASES[0].name, "wrong result")]
    )
    assert run_reports("compare", write("a.json"), b, "--gate", "5%") == 1
    assert "s::c[0] failed, which" in capsys.readouterr().err


@pytest.mark.parametrize("how", [{"not_run": [(CASES[0].name, "out of memory")]}, {}])
def test_a_case_that_is_gone_closes_it_if_it_was_tried_and_is_said_if_it_was_not(write, tmp_path, capsys, how):
    b = planted.write(tmp_path / "b.json", [measured(case, 1.0) for case in CASES[1:]], **how)
    assert run_reports("compare", write("a.json"), b, "--gate", "5%") == (1 if how else 0)
    said = "s::c[0] was not run, which" if how else "not judged in"
    assert said in capsys.readouterr().err


def test_a_case_that_was_cut_off_closes_it(write, tmp_path, capsys):
    cut = [measured(case, 1.0, stopped_by="error: CUDA out of memory") for case in CASES]
    assert run_reports("compare", write("a.json"), planted.write(tmp_path / "b.json", cut), "--gate", "5%") == 1
    assert "s::c[0] was cut off, which" in capsys.readouterr().err


def test_what_it_cannot_see_is_said(write, tmp_path, capsys):
    """Passes that differ by a fifth tell no 5 %; a single pass tells nothing."""
    rng = random.Random(1)
    noisy_ones = [noisy(case, 1.0, rng, between=0.2) for case in CASES[1:]]
    b = planted.write(tmp_path / "b.json", [measured(CASES[0], 9.0, passes=1), *noisy_ones])
    assert run_reports("compare", write("a.json"), b, "--gate", "5%") == 0
    said = capsys.readouterr().err
    assert "1 case with a single pass" in said
    assert "11 cases too noisy to tell twice the gate's 5.0%" in said


def test_a_single_pass_does_not_hide_what_all_the_others_show(write, tmp_path):
    rng = random.Random(2)
    slower = [noisy(case, 1.08, rng, between=0.02) for case in CASES[1:]]
    b = planted.write(tmp_path / "b.json", [measured(CASES[0], 1.08, passes=1), *slower])
    assert run_reports("compare", write("a.json"), b, "--gate", "5%") == 1


def test_a_gate_that_can_judge_nothing_is_not_open(tmp_path, capsys):
    a, b = (planted.write(tmp_path / name, [measured(CASES[0], 1.0, passes=1)]) for name in ("a.json", "b.json"))
    assert run_reports("compare", a, b, "--gate", "5%") == 2
    assert "none of 1 cases" in capsys.readouterr().err


def test_any_of_several_files_closes_it(write, capsys):
    slow = write("c.json", [1.1] * 12)
    assert run_reports("compare", write("a.json"), write("b.json"), slow, "--gate", "5%") == 1
    assert {"c.json" in line for line in capsys.readouterr().err.splitlines()} == {True}


def test_a_threshold_that_is_none_is_refused(write, capsys):
    assert run_reports("compare", write("a.json"), write("b.json"), "--gate", "5") == 2
    assert "--gate '5': not between 0 and 100%" in capsys.readouterr().err
