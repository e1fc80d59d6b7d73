import pytest

from specs import traffic
from specs.errors import UserError
from specs.models import find_model
from specs.parallel import Split

LLAMA, SEED = find_model("llama-3-70b"), find_model("seed-32x12288")
TP8, PP8 = Split(LLAMA, tp=8), Split(LLAMA, pp=8)
SEED_TP8, SEED_PP8 = Split(SEED, tp=8), Split(SEED, pp=8)


def test_two_all_reduces_a_layer():
    assert traffic.all_reduces_per_forward(TP8) == 160  # 2·80
    assert traffic.all_reduces_per_forward(TP8, vocabulary_parallel_embedding=True) == 161
    assert traffic.all_reduces_per_forward(PP8, vocabulary_parallel_embedding=True) == 0


def test_bytes_of_an_all_reduce_a_layer_and_a_step():
    assert traffic.all_reduce_bytes_sent_per_rank(TP8, 1, itemsize=2) == 28_672  # 2·7/8·8192·2
    assert traffic.layer_bytes_sent_per_rank(TP8, 1, itemsize=2) == 57_344
    assert traffic.stage_bytes_sent_per_rank(TP8, 1, itemsize=2) == 4_587_520  # 80·57,344
    assert traffic.stage_bytes_sent_per_rank(TP8, 1024, itemsize=2) == 4_697_620_480  # 4.70 GB
    assert traffic.stage_bytes_sent_per_rank(TP8, 10_000, itemsize=2) == 45_875_200_000  # 45.9 GB


def test_a_stage_reduces_its_own_layers_only():
    # 20 layers of 4·(2−1)/2·8192·2 = 32,768
    assert traffic.stage_bytes_sent_per_rank(Split(LLAMA, 2, 4), 1, itemsize=2, stage=3) == 655_360
    with pytest.raises(UserError, match="stage 4 is outside"):
        traffic.stage_bytes_sent_per_rank(Split(LLAMA, 2, 4), 1, itemsize=2, stage=4)


def test_one_rank_sends_nothing():
    alone = Split(LLAMA)
    assert traffic.stage_bytes_sent_per_rank(alone, 1024, itemsize=2) == 0
    assert traffic.logits_gather_bytes_sent_per_rank(alone, 1024, itemsize=2) == 0
    assert traffic.hop_bytes_sent_per_rank(alone, 1024, itemsize=2) == 0
    assert traffic.hop_bytes_sent_system_wide(alone, 1024, itemsize=2) == 0


def test_gathering_the_logits():
    assert traffic.logits_gather_bytes_sent_per_rank(TP8, 1, itemsize=2) == 224_448  # 7·128256/8·2


def test_a_pipeline_hop():
    assert traffic.hop_bytes_sent_per_rank(PP8, 1, itemsize=2) == 16_384  # 8192·2
    assert traffic.hop_bytes_sent_per_rank(PP8, 1, itemsize=2, with_residual=True) == 32_768
    assert traffic.hop_bytes_sent_per_rank(PP8, 10_000, itemsize=2) == 163_840_000  # sent; with received 328 MB
    assert 2 * traffic.hop_bytes_sent_per_rank(PP8, 1024, itemsize=2) == 32 * 1024**2  # the note's 32 MB are MiB


def test_tp_against_pp_per_rank_and_system_wide():
    tokens = 1024
    per_rank = traffic.stage_bytes_sent_per_rank(TP8, tokens, 2) / traffic.hop_bytes_sent_per_rank(PP8, tokens, 2)
    everywhere = traffic.all_reduce_bytes_sent_system_wide(TP8, tokens, 2) / traffic.hop_bytes_sent_system_wide(
        PP8, tokens, 2
    )
    assert per_rank == 280  # 4·80·7/8
    assert everywhere == 320  # 8·280 / 7 = 4·80
    # the note's 128 is 4·32; per rank that model has 4·32·7/8 = 112
    assert traffic.all_reduce_bytes_sent_system_wide(SEED_TP8, 1, 2) == 128 * traffic.hop_bytes_sent_system_wide(
        SEED_PP8, 1, 2
    )
    assert traffic.stage_bytes_sent_per_rank(SEED_TP8, 1, 2) == 112 * traffic.hop_bytes_sent_per_rank(SEED_PP8, 1, 2)


@pytest.mark.parametrize(
    ("tokens", "elements"),
    [
        (32 * 1024, 45_097_156_608),  # prefill: 4·32·7/8·32·1024·12288, 45.1 G elements, 90.2 GB
        (512, 704_643_072),  # decode: 0.705 G elements, 1.41 GB
        (1024, 1_409_286_144),  # 1.41 G elements, 2.82 GB a step and 282 GB in a hundred
    ],
)
def test_the_seed_formula_for_tp_counts_elements(tokens, elements):
    assert traffic.stage_bytes_sent_per_rank(SEED_TP8, tokens, itemsize=1) == elements
    assert traffic.stage_bytes_sent_per_rank(SEED_TP8, tokens, itemsize=2) == 2 * elements


@pytest.mark.parametrize(
    ("tokens", "elements"),
    [
        (32 * 1024, 2_818_572_288),  # prefill: 7·32·1024·12288, 2.82 G elements, 5.64 GB
        (512, 44_040_192),  # decode: 0.044 G elements, 0.088 GB
        (128, 11_010_048),  # one microbatch of 128: 11 M elements, 22 MB
    ],
)
def test_the_seed_formula_for_pp_counts_elements_of_all_hops(tokens, elements):
    assert traffic.hop_bytes_sent_system_wide(SEED_PP8, tokens, itemsize=1) == elements


def test_every_rank_of_a_stage_sends_its_hop():
    # 3 hops, 2 ranks a stage, 8192·2 bytes each
    assert traffic.hop_bytes_sent_system_wide(Split(LLAMA, 2, 4), 1, itemsize=2) == 98_304
