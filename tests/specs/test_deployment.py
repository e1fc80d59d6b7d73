"""How a model is laid over ranks: who sits where, who gets which sequences, and what is refused."""

import pytest

from specs.errors import UserError
from specs.models import MODELS, scaled_model
from specs.parallel import Deployment, RankPosition, Split

MIXED = Deployment(tp=2, pp=3, replicas=2, schedule="async", micro_batches=4)


def test_ranks_of_a_layer_are_neighbours_then_come_stages_then_replicas():
    # 12 ranks: 0 and 1 share the first stage of the first replica, 2 and 3 its second, 6 and 7 begin the next replica
    assert [MIXED.position(rank) for rank in (0, 1, 2, 5, 6, 11)] == [
        RankPosition(0, 0, 0),
        RankPosition(0, 0, 1),
        RankPosition(0, 1, 0),
        RankPosition(0, 2, 1),
        RankPosition(1, 0, 0),
        RankPosition(1, 2, 1),
    ]
    assert [MIXED.rank(MIXED.position(rank)) for rank in range(12)] == list(range(12))


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        (16, (2, 2, 2, 2)),
        (20, (3, 3, 2, 2)),  # 10 sequences a replica
    ],
)
def test_a_replica_deals_its_part_of_the_batch_to_micro_batches(batch, sizes):
    assert MIXED.micro_batch_sizes(batch) == sizes


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (Deployment(), "tp1"),
        (Deployment(tp=8), "tp8"),
        (Deployment(replicas=4), "tp1x4"),
        (Deployment(pp=2, schedule="sync"), "pp2-sync"),
        (Deployment(pp=4, schedule="async", micro_batches=8, partition="balanced"), "pp4-async8-balanced"),
        (MIXED, "tp2-pp3-async4x2"),
    ],
)
def test_a_name_tells_each_from_the_others(one, name):
    assert str(one) == name


@pytest.mark.parametrize(
    ("one", "ranks", "batch", "reason"),
    [
        (MIXED, 12, 16, None),
        (MIXED, 8, 16, "tp 2 x pp 3 x replicas 2 is 12 ranks and this run has 8; choose factors of 8, or --ranks 12"),
        (MIXED, 12, 15, "batch 15 does not divide over 2 replicas; choose a multiple of 2"),
        (MIXED, 12, 6, "4 micro-batches of 3 sequences a replica: at most one a sequence; choose a larger --batch "),
        (Deployment(pp=2), 2, 4, "schedule tp with pp 2: tp is for one stage, sync and async for several"),
        (Deployment(tp=2, schedule="sync"), 2, 4, "schedule sync with pp 1: "),
        (Deployment(pp=2, schedule="waltz"), 2, 4, "schedule waltz with pp 2: "),
        (Deployment(pp=2, schedule="sync", partition="odd"), 2, 4, "partition 'odd' is unknown; choose from even, "),
        (Deployment(pp=2, schedule="sync", micro_batches=2), 2, 4, "2 micro-batches under schedule sync: only async "),
    ],
)
def test_what_cannot_run_says_why_in_a_line(one, ranks, batch, reason):
    found = one.why_not(ranks, batch)
    assert found is None if reason is None else found.startswith(reason)
    assert "\n" not in (found or "")


@pytest.mark.parametrize(
    ("slug", "pp", "counts"),
    [
        ("llama-3.2-1b", 2, (10, 6)),  # the head weighs 4.3 layers: 10 against 6 + 4.3
        ("llama-3-70b", 8, (11, 10, 10, 10, 10, 10, 10, 9)),  # 1.2 layers: 11 against 9 + 1.2
        ("tiny", 2, (5, 3)),  # 1.9 layers: 5 against 3 + 1.9
        ("tiny", 1, (8,)),
    ],
)
def test_a_balanced_partition_makes_the_slowest_stage_as_fast_as_can_be(slug, pp, counts):
    assert Split(MODELS[slug], pp=pp, partition="balanced").stage_layers() == counts
    assert sum(counts) == MODELS[slug].layers


def test_an_unknown_partition_is_refused():
    with pytest.raises(UserError, match="tiny: partition 'odd' is unknown; choose from even, balanced"):
        Split(MODELS["tiny"], partition="odd")


def test_a_model_cut_down_keeps_the_weight_of_its_head_beside_a_layer():
    whole, cut = MODELS["llama-3-70b"], scaled_model(MODELS["llama-3-70b"], 10)
    assert (cut.layers, cut.vocab, cut.layer_parameters) == (10, 16_000, whole.layer_parameters)
    # 128256 / 8 = 16032, to a multiple of 128
    shares = [one.embedding_parameters / (one.layers * one.layer_parameters) for one in (whole, cut)]
    assert shares[1] == pytest.approx(shares[0], rel=0.003)
    assert scaled_model(whole, 80) is whole


@pytest.mark.parametrize("layers", [0, 81])
def test_a_model_cannot_be_cut_to_more_layers_than_it_has_or_none(layers):
    with pytest.raises(UserError, match=f"--layers {layers} exceeds its 80 layers; choose 1 to 80"):
        scaled_model(MODELS["llama-3-70b"], layers)


def test_a_single_micro_batch_keeps_one_stage_busy_and_several_keep_several():
    assert Deployment(tp=2, pp=4, schedule="sync", replicas=2).busy_ranks == 4
    assert Deployment(tp=1, pp=4, schedule="async", micro_batches=2).busy_ranks == 2
    assert Deployment(tp=1, pp=4, schedule="async", micro_batches=8).busy_ranks == 4
