"""The answer in a sentence: who is faster where, as far as intervals allow, worked out by hand."""

from math import exp

import pytest

from reports.deployment_names import deployment_name, describe_loads, model_description
from reports.results import load
from reports.tp_vs_pp.compare import (
    Load,
    MeasuredCrossover,
    collect_experiments,
    compare_tp_pp,
    find_crossover,
    tied_fastest,
)
from reports.tp_vs_pp.report import experiment_sentence, winner_texts
from specs.parallel import Deployment
from tests.reports import planted
from tests.reports.tp_vs_pp.planted_steps import ASYNC, ASYNC4, SYNC, TP2, TWO_REPLICAS, step

NOISY_MS = [9.0, 11.0, 9.0, 11.0]
"""Its middle is 10, and its interval reaches from about 8.4 to 11.8."""


@pytest.fixture
def experiments(tmp_path):
    return lambda *found: collect_experiments(load(planted.write(tmp_path / "x.json", found)))


@pytest.fixture
def said(experiments):
    """The sentence after the colon."""
    return lambda *found: experiment_sentence("it", experiments(*found)[0]).partition(": ")[2]


def tp_and_pp_steps(times):
    """Steps of TP at 10 ms and of PP at the given ones, by batch."""
    pairs = [(step(TP2, 10.0, batch, 4), step(SYNC, ms, batch, 4)) for batch, ms in times.items()]
    return [one for pair in pairs for one in pair]


def test_the_whole_sentence(experiments):
    """TP takes 10 ms, PP at its best 18, 12.5 and 8 ms; 256 tokens in the 6.4 ms of replicas are 40,000 a second."""
    found = [
        *tp_and_pp_steps({1: 18.0, 64: 20.0, 256: 20.0}),
        step(ASYNC, 12.5, 64, 4),
        step(ASYNC, 8.0, 256, 4),
        step(TWO_REPLICAS, 6.4, 256, 4),
    ]
    (one,) = experiments(*found)
    assert experiment_sentence("EPYC", one) == (
        "On EPYC (2 ranks over gloo), in decode of llama-3.2-1b cut to 2 of 16 layers, vocabulary in proportion, bf16 "
        "by torch, context 128: TP 2 is faster than PP 2 up to a batch of 64 (1.80 times at 1 and 1.25 times at 64); "
        "PP 2 is faster than TP 2 at a batch of 256 (1.25 times, by async PP 2 with 2 micro-batches); so PP overtakes "
        "at a batch between 64 and 256; the most tokens a second are 40,000 at 256, by 2 replicas."
    )


def test_winners_are_named_without_by_how_much_and_only_where_there_are_any(experiments, tmp_path):
    (one,) = experiments(*tp_and_pp_steps({1: 18.0, 64: 20.0, 256: 8.0}))
    assert winner_texts(one) == [
        "TP 2 is faster than PP 2 up to a batch of 64",
        "PP 2 is faster than TP 2 at a batch of 256",
    ]
    (crowded,) = collect_experiments(
        load(planted.write(tmp_path / "y.json", tp_and_pp_steps({1: 18.0}), machine=planted.CPU | {"cores": 1}))
    )
    assert winner_texts(crowded) == []
    (alone,) = experiments(step(TP2, 10.0, 1, 4))
    assert winner_texts(alone) == []


def test_ranks_that_take_turns_on_a_core_name_no_winner(tmp_path):
    machine = planted.CPU | {"cores": 1}
    (one,) = collect_experiments(load(planted.write(tmp_path / "x.json", tp_and_pp_steps({1: 18.0}), machine=machine)))
    assert experiment_sentence("it", one).endswith(
        ": 2 ranks share 1 core and take turns, so no winner is named: what waits and for whom is in the ledgers."
    )


def test_where_the_interval_holds_1_no_winner_is_named(said):
    text = said(*tp_and_pp_steps({1: 18.0, 64: NOISY_MS, 256: 8.0}))
    assert "TP 2 is faster than PP 2 at a batch of 1 (1.80 times)" in text
    assert "the two cannot be told apart at a batch of 64" in text
    assert "PP overtakes at a batch between 1 and 256" in text


def test_of_what_cannot_be_told_apart_nothing_is_claimed(said):
    assert (
        said(*tp_and_pp_steps({1: NOISY_MS, 64: NOISY_MS})) == "the two cannot be told apart at any batch from 1 to 64."
    )


def test_the_most_tokens_may_be_those_of_several(said):
    """64 tokens in 10 ms; sync PP at 20 ms is slower, async PP is not told from TP."""
    text = said(*tp_and_pp_steps({64: 20.0}), step(ASYNC, NOISY_MS, 64))
    assert text.endswith(
        "the most tokens a second are 6,400 at 64, by TP 2 and async PP 2 with 2 micro-batches, which cannot be told "
        "apart."
    )


def test_who_has_lost_a_comparison_is_not_tied_with_its_winner(experiments, said):
    """PP is 3.6 standard errors behind: told apart from TP alone, not among two (see the luckiest of several)."""
    passes = [10 * exp(3.6 * 0.01 / 3**0.5 + off) for off in (-0.01, 0.01, -0.01, 0.01)]
    found = [step(TP2, 10.0, 2, 4), step(ASYNC, passes, 2), step(TWO_REPLICAS, 50.0, 2, 4)]
    (one,) = experiments(*found)
    assert [tied_fastest(runs) for runs in one.loads.values()] == [[TP2, ASYNC]]
    assert said(*found) == (
        "TP 2 is faster than PP 2 at a batch of 2 (1.02 times); the most tokens a second are 200 at 2, by TP 2."
    )


def test_nor_are_both_named_where_a_third_is_the_fastest(said):
    """Replicas at 9.99 ms for certain: TP at 10 ms and PP behind it may both reach them, and PP has lost to TP."""
    passes = [10 * exp(3.6 * 0.01 / 3**0.5 + off) for off in (-0.01, 0.01, -0.01, 0.01)]
    text = said(step(TP2, 10.0, 2, 4), step(ASYNC, passes, 2), step(TWO_REPLICAS, [9.0, 11.0, 9.0, 10.98], 2))
    assert text.endswith("by 2 replicas and TP 2, which cannot be told apart.")


def test_a_single_pass_names_no_winner(said):
    text = said(step(TP2, 10.0, passes=1), step(SYNC, 20.0, passes=1))
    assert text == "a single pass gives no interval, so no winner is named: measure with --passes 2 or more."


def test_one_side_alone_gives_no_comparison(said):
    assert said(step(TP2, 10.0), step(TWO_REPLICAS, 5.0, 2)).startswith("TP and PP have not both run over all ranks")


def test_a_hybrid_is_no_side_of_the_comparison(experiments):
    hybrid = Deployment(tp=2, pp=2, schedule="sync")
    (one,) = experiments(step(Deployment(tp=4), 10.0), step(hybrid, 1.0), step(Deployment(2, 1, 2), 1.0, 2))
    assert compare_tp_pp(one) == []


def test_the_luckiest_of_several_has_to_win_by_more(experiments):
    """Logs of the passes of PP: d ± 0.01 twice each, so a standard error of 0.01 / sqrt(3) = 0.00577, and d is 3.6 of
    them. Welch's freedom is 3: t is 3.18 for 95 %, and 4.18 for 97.5 %, which one of two needs."""
    passes = [10 * exp(3.6 * 0.01 / 3**0.5 + off) for off in (-0.01, 0.01, -0.01, 0.01)]
    alone = [step(TP2, 10.0, 2, 4), step(SYNC, passes, 2)]
    (one,) = compare_tp_pp(experiments(*alone)[0])
    assert one.winner == "tp"
    (one,) = compare_tp_pp(experiments(*alone, step(ASYNC, 50.0, 2, 4))[0])
    assert (one.pp, one.winner) == (SYNC, None)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({1: 20.0, 64: 20.0, 256: 8.0, 1024: 8.0}, MeasuredCrossover(64, 256)),
        ({1: 20.0, 64: NOISY_MS, 256: NOISY_MS, 1024: 8.0}, MeasuredCrossover(1, 1024)),
        ({1: 20.0, 64: 8.0, 256: NOISY_MS}, MeasuredCrossover(1, 64)),
        ({1: 20.0, 64: 20.0}, MeasuredCrossover(64, None, "PP is ahead at no batch")),
        ({1: NOISY_MS, 64: 8.0}, MeasuredCrossover(None, 64, "TP is ahead at no batch")),
        ({1: NOISY_MS, 64: NOISY_MS}, MeasuredCrossover(None, None, "they cannot be told apart at any batch")),
        ({1: 20.0, 64: 8.0, 256: 20.0}, MeasuredCrossover(None, None, "PP is ahead at 64 and TP again at 256")),
    ],
)
def test_the_crossover_lies_between_two_batches_that_were_told_apart(experiments, times, expected):
    assert find_crossover(compare_tp_pp(experiments(*tp_and_pp_steps(times))[0])) == expected


def test_leaders_are_the_fastest_and_what_cannot_be_told_from_it(experiments):
    (one,) = experiments(
        step(TP2, 10.0, 4, 4),
        step(SYNC, 20.0, 4, 4),
        step(ASYNC, NOISY_MS, 4),
        step(TWO_REPLICAS, 10.0, 8, 4),
        step(TP2, 12.0, 8, 4),
    )
    assert [tied_fastest(runs) for runs in one.loads.values()] == [[TP2, ASYNC], [TWO_REPLICAS]]


def test_contexts_and_models_are_experiments_of_their_own(experiments):
    found = experiments(
        step(TP2, context=128),
        step(TP2, context=4096),
        step(TP2, layers=4),
        step(TP2, batch=2, prompt=64),
        step(TP2, batch=2),
    )
    told = [(one.setting.layers, one.setting.context, list(one.loads)) for one in found]
    assert told == [
        (2, 128, [Load(1, 1), Load(1, 2)]),
        (2, 4096, [Load(1, 1)]),
        (4, 128, [Load(1, 1)]),
        (2, None, [Load(64, 2)]),
    ]


def test_prompts_are_counted(said):
    """4 x 512 tokens in 20 ms are 102,400 a second."""
    steps = (step(TP2, 25.0, 4, prompt=512), step(ASYNC4, 20.0, 4, prompt=512))
    assert said(*steps) == (
        "PP 2 is faster than TP 2 for 4 prompts of 512 (1.25 times, by async PP 2 with 4 micro-batches); the most "
        "tokens a second are 102,400 for 4 prompts of 512, by async PP 2 with 4 micro-batches."
    )


@pytest.mark.parametrize(
    ("deployment", "words"),
    [
        (TP2, "TP 2"),
        (SYNC, "sync PP 2"),
        (
            Deployment(pp=4, schedule="async", micro_batches=8, partition="balanced"),
            "async PP 4 with 8 micro-batches, balanced",
        ),
        (Deployment(tp=2, pp=2, schedule="sync"), "TP 2 x sync PP 2"),
        (TWO_REPLICAS, "2 replicas"),
        (Deployment(tp=2, replicas=4), "4 replicas of TP 2"),
        (Deployment(), "one rank"),
    ],
)
def test_deployments_in_words(deployment, words):
    assert deployment_name(deployment) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "llama-3.2-1b cut to 2 of 16 layers, vocabulary in proportion"),
        ({"vocab": 128256}, "llama-3.2-1b cut to 2 of 16 layers, vocabulary 128256"),
        ({"layers": 16, "vocab": 128256}, "llama-3.2-1b"),
        ({"model": "mine", "layers": 3}, "mine of 3 layers"),
    ],
)
def test_how_much_of_a_model_ran_is_said(experiments, changes, words):
    assert model_description(experiments(step(TP2, **changes))[0].setting) == words


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ((1, 16, 64), "at every batch from 1 to 64"),
        ((1, 16), "up to a batch of 16"),
        ((16, 64), "from a batch of 16 on"),
        ((1, 64), "at batches of 1 and 64"),
        ((16,), "at a batch of 16"),
    ],
)
def test_batches_in_words(chosen, words):
    loads = [Load(1, batch) for batch in (1, 16, 64)]
    assert describe_loads([one for one in loads if one.batch in chosen], loads) == words
