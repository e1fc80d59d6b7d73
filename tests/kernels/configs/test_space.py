"""What is worth a try: all of it fits, none of it idles, and no shape is left without."""

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.configs.config import SKINNY_TOKEN_CLASSES, LinearConfig, layer_shards, token_class
from kernels.configs.space import SKINNY_MAX_ACCUMULATORS, neighbours, skinny_candidates
from specs.gpus import ARCHS
from specs.units import ITEMSIZE

few = settings(max_examples=30, deadline=None, derandomize=True, database=None)
DTYPES = ("bf16", "fp16", "fp32")
ARCH = st.sampled_from(list(ARCHS.values()))


def faults(config, on, dtype, tokens, k):
    """What is wrong with a configuration, from first principles."""
    tile_bytes = (config.rows + config.tokens) * config.depth * ITEMSIZE[dtype]
    pipelined = config.matrix or config.stages > 1
    last_begins = (config.split - 1) * ceil(ceil(k / config.depth) / config.split) * config.depth
    found = {
        "more shared memory than a block may have": pipelined
        and config.stages * tile_bytes > on.shared_bytes_per_block,
        "more warps than an SM holds": config.warps > on.warps,
        "a last part without work": last_begins >= k,
        "a copy engine that is not there": config.tma and not on.tma,
        "a tile that does not hold the tokens": config.tokens < tokens,
        "matrix units below their least size": config.matrix and (config.tokens < 16 or config.rows < 64),
        "multiply-adds for many tokens": not config.matrix and tokens > 4,
        "more sums than a thread has registers for": config.matrix
        and config.rows * config.tokens > SKINNY_MAX_ACCUMULATORS * config.warps * 32,
        "an access that is no whole 16 bytes": config.depth * ITEMSIZE[dtype] % 16 != 0,
        "sizes that are no powers of two": any(
            size & (size - 1) for size in (config.rows, config.tokens, config.depth, config.warps)
        ),
    }
    return [fault for fault, there in found.items() if there]


@few
@given(on=ARCH, tokens=st.integers(1, 64), n=st.integers(1, 30_000), k=st.integers(1, 30_000))
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_candidate_fits_and_has_work(dtype, on, tokens, n, k):
    found = list(skinny_candidates(on, dtype, tokens=tokens, n=n, k=k))
    assert found
    assert len(found) == len(set(found))
    assert {fault for config in found for fault in faults(config, on, dtype, tokens, k)} == set()


def test_faults_are_told():
    shape = {"tokens": 16, "k": 1024}
    good = LinearConfig(64, 16, 128, 2, 4, 4)
    on = ARCHS["sm_80"]
    assert faults(good, on, "bf16", **shape) == []
    # 8 stages x (128 + 16) x 128 x 2 bytes = 288 KiB; 1024 / 128 = 8 steps, in 6 parts of 2 steps: four have work
    assert faults(good._replace(rows=128, stages=8), on, "bf16", **shape) == [
        "more shared memory than a block may have"
    ]
    assert faults(good._replace(split=6), on, "bf16", **shape) == ["a last part without work"]
    assert faults(good._replace(tma=True), on, "bf16", **shape) == ["a copy engine that is not there"]
    assert faults(good._replace(tokens=1), on, "bf16", **shape) != []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("on", ARCHS.values(), ids=lambda on: on.name)
def test_no_token_count_is_left_without_a_candidate(on, dtype):
    empty = [
        (tokens, k)
        for tokens in range(1, 65)
        for k in (1, 7, 64, 1025, 8192, 28672)
        if not skinny_candidates(on, dtype, tokens=tokens, n=1, k=k)
    ]
    assert empty == []


@pytest.mark.parametrize("name", ["sm_90", "sm_100", "sm_120"])
def test_descriptors_and_pointers_are_both_tried_where_there_is_a_copy_engine(name):
    found = list(skinny_candidates(ARCHS[name], "bf16", tokens=16, n=8192, k=8192))
    assert {config.tma for config in found} == {True, False}
    assert {config.tma for config in skinny_candidates(ARCHS[name], "fp32", tokens=16, n=8192, k=8192)} == {False}


def test_up_to_four_tokens_try_both_ways_to_multiply():
    ways = {
        tokens: {config.matrix for config in skinny_candidates(ARCHS["sm_90"], "bf16", tokens=tokens, n=8192, k=8192)}
        for tokens in (1, 4, 5, 64)
    }
    assert ways == {1: {True, False}, 4: {True, False}, 5: {True}, 64: {True}}


def test_the_split_is_searched_for_every_shard():
    for shard in layer_shards():
        for tokens in SKINNY_TOKEN_CLASSES:
            found = list(skinny_candidates(ARCHS["sm_90"], "bf16", tokens=tokens, n=shard.n, k=shard.k))
            assert len({config.split for config in found}) >= 4, (shard, tokens)
            assert {config.tokens for config in found} <= {token_class(tokens), max(16, token_class(tokens))}


def test_whole_tiles_are_preferred_where_there_are_any():
    aligned = skinny_candidates(ARCHS["sm_90"], "bf16", tokens=1, n=8192, k=3584)  # 3584 = 7 x 512
    assert aligned
    assert all(config.even(8192, 3584) for config in aligned)
    assert {512} <= {config.depth for config in aligned if not config.matrix} <= {512}
    assert all(config.depth <= 1024 for config in skinny_candidates(ARCHS["sm_90"], "bf16", tokens=1, n=8192, k=1024))
    assert not any(
        config.even(8191, 3584) for config in skinny_candidates(ARCHS["sm_90"], "bf16", tokens=1, n=8191, k=3584)
    )


def test_neighbours_differ_in_one_field_and_come_nearest_first():
    start = LinearConfig(128, 16, 64, 4, 4, 4)
    other = {
        "stages 3": start._replace(stages=3),  # a quarter away
        "split 6": start._replace(split=6),  # a half
        "split 8": start._replace(split=8),  # as much again
        "split 3, stages 3": start._replace(split=3, stages=3),
        "itself": start,
    }
    found = neighbours(start, list(reversed(other.values())))
    assert found == [other["stages 3"], other["split 6"], other["split 8"]]


@few
@given(data=st.data(), tokens=st.sampled_from(SKINNY_TOKEN_CLASSES))
def test_neighbours_among_candidates(data, tokens):
    among = list(skinny_candidates(ARCHS["sm_90"], "bf16", tokens=tokens, n=8192, k=8192))
    start = data.draw(st.sampled_from(among))
    found = neighbours(start, among)
    assert all(sum(old != new for old, new in zip(start, one, strict=True)) == 1 for one in found)
    assert {config for config in among if sum(a != b for a, b in zip(start, config, strict=True)) == 1} == set(found)
    assert found, "every candidate can be walked away from"
