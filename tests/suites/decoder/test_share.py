"""What a rank computes of a model by itself, on real ranks: right, and nothing where it is not asked."""

from dataclasses import asdict

import pytest

from specs.layer import HEAD_SHARE, LAYER_SHARE
from specs.parallel import Deployment
from tests.suites.decoder.model_workers import build_model, logit_errors, start_workers

TIGHT = 2e-6


@pytest.fixture(scope="module")
def two():
    with start_workers(2) as made:
        yield made


def share(crew, laid, ranks, *, sequences=10, dtype="fp32", layers=8):
    told = {
        "ranks": ranks,
        "deployment": asdict(laid),
        "model": "tiny",
        "layers": layers,
        "tokens": sequences,
        "batch": sequences,
        "context": 24,
        "dtype": dtype,
        "implementation": "torch",
        "backend": "gloo",
        "label": {"name": "a share", "question": "shares", "number": 0},
    }
    return crew.run_command("share", told, "setting a share up")


def found(crew):
    """By rank the errors of its parts."""
    return [
        {part: float(error) for part, error in reply["errors"].items()}
        for reply in crew.run_command("prove", {}, "proving")
    ]


@pytest.mark.parametrize(
    ("laid", "ranks"),
    [
        (Deployment(tp=2), 2),
        (Deployment(), 1),
        (Deployment(pp=2, schedule="sync"), 2),
        (Deployment(pp=8, schedule="sync"), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("sequences", [1, 10])
def test_layers_and_head_are_those_of_a_float64_reference(two, laid, ranks, sequences):
    share(two, laid, ranks, sequences=sequences)
    for errors_of in found(two)[:ranks]:
        assert set(errors_of) == {LAYER_SHARE, HEAD_SHARE}
        assert 0 < max(errors_of.values()) < TIGHT


def test_bf16_is_within_the_tolerance_of_the_kernels(two):
    share(two, Deployment(tp=2), 2, dtype="bf16")
    for one in found(two):
        assert 1e-3 < one[LAYER_SHARE] < 4e-2
        assert 1e-3 < one[HEAD_SHARE] < 1.2e-2


@pytest.mark.parametrize(
    ("laid", "ranks", "stretches"),
    [
        (
            Deployment(tp=2),
            2,
            {LAYER_SHARE: 3 * 2, HEAD_SHARE: 2},
        ),  # a message behind o and behind down, and one of sampling
        (Deployment(), 1, {LAYER_SHARE: 3, HEAD_SHARE: 1}),
        (Deployment(pp=3, schedule="sync"), 2, {LAYER_SHARE: 1, HEAD_SHARE: 1}),
    ],
    ids=str,
)
def test_each_step_has_the_seconds_of_every_stretch_between_two_messages(two, laid, ranks, stretches):
    share(two, laid, ranks, layers=3)
    for reply in two.run_command("walk", {"steps": 4}, "timing")[:ranks]:
        assert reply["clock"] == "perf_counter"
        assert {part: list(map(len, steps)) for part, steps in reply["seconds"].items()} == {
            part: [count] * 4 for part, count in stretches.items()
        }
        spent = [one for steps in reply["seconds"].values() for step in steps for one in step]
        assert min(spent) > 0
        assert sum(spent) <= 4 * reply["step_seconds"]


def test_ranks_that_do_not_compute_are_given_nothing():
    with start_workers(4) as four:
        for laid, ranks in ((Deployment(tp=2), 2), (Deployment(pp=4, schedule="sync"), 3), (Deployment(), 1)):
            computes = [rank < ranks for rank in range(4)]
            assert [bool(reply.get("bytes")) for reply in share(four, laid, ranks)] == computes
            assert [bool(errors_of) for errors_of in found(four)] == computes
            assert [bool(reply["seconds"]) for reply in four.run_command("walk", {"steps": 2}, "timing")] == computes


def test_a_model_runs_as_before_behind_a_share(two):
    share(two, Deployment(tp=2), 2)
    found(two)
    two.run_command("walk", {"steps": 2}, "timing")
    build_model(two, Deployment(tp=2), batch=10)
    assert 0 < max(logit_errors(two)) < TIGHT


@pytest.mark.parametrize(
    ("planted", "part"),
    [("no_swiglu", LAYER_SHARE), ("last_sequence_left_out", LAYER_SHARE), ("short_head", HEAD_SHARE)],
)
def test_a_fault_in_a_rank_is_an_error_far_over_the_tolerance(planted, part):
    with start_workers(2, planted) as made:
        share(made, Deployment(tp=2), 2)
        for one in found(made):
            right = HEAD_SHARE if part == LAYER_SHARE else LAYER_SHARE
            assert not one[part] < 0.1  # or is NaN
            assert one[right] < TIGHT
