"""Which question a case belongs to, and what is said of each."""

import pytest

from reports.compare.comparison import compare_files, group_of
from reports.compare.report import explanation_sentence
from tests.reports import planted
from tests.reports.compare.test_explain import GPUS, NEW
from tests.reports.planted import measured
from tests.reports.planted_sweeps import file


@pytest.mark.parametrize(
    ("facts", "group"),
    [
        ({"question": "decode"}, "decode"),
        ({"question": "prefill"}, "prefill"),
        ({"question": "sweep", "tokens": 256}, "decode"),
        ({"question": "sweep", "tokens": 257}, "prefill"),
        ({"question": "layer", "tokens": 512, "batch": 512}, "decode"),
        ({"question": "layer", "tokens": 128, "batch": 1}, "prefill"),
        ({"question": "layer", "tokens": 16}, "decode"),
        ({"question": "attention", "tokens": 4096}, "attention"),
        ({"question": "moe"}, "experts"),
        ({"question": "communication"}, "communication"),
        ({"question": "messages"}, "communication"),
        ({"question": "tp_vs_pp"}, "split"),
        ({"question": "shares"}, "split"),
        ({"question": "ceilings"}, "ceilings"),
        ({"question": "something new"}, "something new"),
    ],
)
def test_a_case_belongs_to_a_question(facts, group):
    assert group_of(planted.case(**facts)) == group


def test_each_question_says_what_explains_it_and_what_does_not():
    """H100 to H200 at nine tenths of the memory's and seven tenths of the arithmetic's datasheet figures."""

    def run(gpu, bandwidth):
        decode = [planted.case(f"s::d[{n}]", hbm_bytes=10**8, flops=10**8, tokens=n) for n in range(1, 9)]
        prefill = [
            planted.case(f"s::p[{n}]", question="prefill", hbm_bytes=10**8, flops=10**13, tokens=n)
            for n in range(257, 261)
        ]
        made = [measured(case, 10**8 / (0.9 * bandwidth)) for case in decode]
        return file([*made, *(measured(case, 10**13 / (0.7 * 989.5e12)) for case in prefill)], GPUS[gpu])

    versus = compare_files(run("h100", 3.35e12), run("h200", 4.8e12))
    decode, prefill = versus.groups
    assert (decode.name, decode.verdict_at(0.01), decode.explained) == ("decode", "faster", {"memory bandwidth": 8})
    assert (prefill.name, prefill.verdict_at(0.01), prefill.explained) == ("prefill", "same", {})
    assert decode.unexplained == pytest.approx(1.0)
    assert explanation_sentence(decode, 0.01) == (
        "0.698 of the time; memory bandwidth (0.698) explains 8 of 8; flops (1.000) explain nothing"
    )
    assert explanation_sentence(prefill, 0.01) == (
        "1.000 of the time; memory bandwidth (0.698) explains nothing; flops (1.000) explain nothing"
    )


def test_what_stays_unexplained_is_counted():
    """Of streams at full speed on twice the bandwidth one took half the time, one as long as before, one far longer."""
    ceilings = [planted.ceilings(read=10e9), planted.ceilings(read=20e9)]
    streams = [planted.case(f"s::s[{n}]", tokens=n, flops=10**6) for n in (1, 2, 3)]
    odd = planted.case("s::odd", tokens=4, hbm_bytes=0)
    sides = [
        file([*(measured(case, seconds) for case, seconds in zip([*streams, odd], times, strict=True)), *of], machine)
        for times, of, machine in zip(
            ((0.11, 0.11, 0.11, 1.0), (0.055, 0.11, 0.2, 2.0)), ceilings, (planted.CPU, NEW), strict=True
        )
    ]
    group = compare_files(*sides).groups[0]
    assert explanation_sentence(group, 0.015).endswith(
        "memory bandwidth (0.500) explains 1 of 4; flops (1.000) explain nothing; of 1 no resource is known; "
        "1 changed by more than 1.5% and stays unexplained"
    )


def test_what_nothing_is_known_of_is_said():
    a = file([measured(planted.case("s::a"), 1.0), measured(planted.case("s::b"), 1.0)])
    b = file([measured(planted.case("s::a"), 2.0), measured(planted.case("s::b"), 1.0)])
    (group,) = compare_files(a, b).groups
    assert explanation_sentence(group, 0.01) == "1.414 of the time; nothing is known that could explain it"


def test_the_bar_rises_with_the_number_of_questions():
    """Three passes 1 % off, so 8 % is ten errors: enough for one question, not for one of many that did not change."""

    def side(factor, questions):
        made = [
            measured(planted.case(f"s::{question}", question=question), tuple((level * f,) for f in (0.99, 1.0, 1.01)))
            for question, level in zip(questions, (factor, *[1.0] * 20), strict=False)
        ]
        return file(made)

    names = ["decode", *(f"question {number}" for number in range(20))]
    for questions, verdict in ((names[:1], "slower"), (names, "ambiguous")):
        (group, *_) = compare_files(side(1.0, questions), side(1.08, questions), 0.05).groups
        assert (group.name, group.verdict_at(0.05)) == ("decode", verdict)
