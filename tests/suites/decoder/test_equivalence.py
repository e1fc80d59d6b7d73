"""Every split gives the logits of the whole model on one rank, in float64: with 2 and 4 ranks of gloo."""

import pytest

from specs.parallel import Deployment
from suites.decoder.reference import logits_rtol
from tests.suites.decoder.model_workers import build_model, logit_errors, start_workers

TIGHT = 2e-6
"""fp32 against float64 after 8 layers; 6e-7 was found."""
TWO = [
    Deployment(tp=2),
    Deployment(pp=2, schedule="sync"),
    Deployment(pp=2, schedule="async", micro_batches=2),
    Deployment(pp=2, schedule="async", micro_batches=5),
    Deployment(pp=2, schedule="sync", partition="balanced"),
    Deployment(replicas=2),
]
FOUR = [
    Deployment(tp=4),  # of two kv heads each is on two ranks
    Deployment(pp=4, schedule="sync"),
    Deployment(pp=4, schedule="async", micro_batches=4),
    Deployment(pp=4, schedule="async", micro_batches=3),
    Deployment(tp=2, pp=2, schedule="sync"),
    Deployment(tp=2, pp=2, schedule="async", micro_batches=2),
    Deployment(tp=2, pp=2, schedule="async", micro_batches=4, partition="balanced"),
    Deployment(tp=2, replicas=2),
    Deployment(pp=2, replicas=2, schedule="async", micro_batches=3, partition="balanced"),
]


@pytest.fixture(scope="module")
def two():
    with start_workers(2) as made:
        yield made


@pytest.fixture(scope="module")
def four():
    with start_workers(4) as made:
        yield made


def check(crew, deployment, limit=TIGHT, **shape):
    build_model(crew, deployment, **shape)
    found = logit_errors(crew)
    assert len(found) == deployment.tp * deployment.replicas  # each last stage has logits
    assert 0 < max(found) < limit


@pytest.mark.parametrize("batch", [10, 14])
@pytest.mark.parametrize("deployment", TWO, ids=str)
def test_decode_on_two_ranks_gives_the_logits_of_one(two, deployment, batch):
    check(two, deployment, batch=batch)


@pytest.mark.parametrize("deployment", TWO, ids=str)
def test_prefill_on_two_ranks_gives_the_logits_of_one(two, deployment):
    check(two, deployment, batch=10, length=9)


@pytest.mark.parametrize("deployment", FOUR, ids=str)
def test_decode_on_four_ranks_gives_the_logits_of_one(four, deployment):
    check(four, deployment, batch=10)


@pytest.mark.parametrize("deployment", FOUR, ids=str)
def test_prefill_on_four_ranks_gives_the_logits_of_one(four, deployment):
    check(four, deployment, batch=8, length=5)


@pytest.mark.parametrize("deployment", [TWO[0], TWO[1]], ids=str)
def test_a_single_request_gives_the_logits_of_one_rank(two, deployment):
    check(two, deployment, batch=1)


@pytest.mark.parametrize("deployment", TWO[:3], ids=str)
def test_bf16_stays_within_the_stated_tolerance(two, deployment):
    limit = logits_rtol("bf16", 8)
    assert limit == pytest.approx(0.036)
    check(two, deployment, limit, batch=4, dtype="bf16")


def test_a_model_cut_to_fewer_layers_is_that_model(two):
    check(two, TWO[2], batch=4, layers=3)


@pytest.mark.parametrize(
    ("planted", "deployment", "worst"),
    [
        ("no_sum", TWO[0], 0.3),
        ("other_caches", TWO[2], 0.1),
        ("other_tokens", TWO[2], 0.3),
        ("tokens_of_another", TWO[2], 0.3),
        ("stale", TWO[1], 0.3),
        ("no_offset", TWO[0], 1.0),
        ("worst_token", TWO[0], 1.0),
        ("not_greedy", TWO[1], 1.0),
    ],
)
def test_a_fault_in_a_rank_is_an_error_far_over_the_tolerance(planted, deployment, worst):
    with start_workers(2, planted) as made:
        build_model(made, deployment, batch=4)
        assert max(logit_errors(made)) >= worst
