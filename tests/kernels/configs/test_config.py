"""What a configuration asks for, and which shapes are tuned: by hand."""

import pytest

from kernels.configs.config import LinearConfig, layer_shards, token_class
from specs.errors import UserError

MATRIX = LinearConfig(128, 16, 64, 4, 4, 5)
STREAM = LinearConfig(8, 2, 2048, 1, 4, 1, matrix=False)


def test_a_configuration_in_words():
    assert str(MATRIX._replace(tma=True)) == "matrix 128x16x64 /4 w4 s5 tma"
    assert str(STREAM) == "multiply-add 8x2x2048 w4 s1"


@pytest.mark.parametrize(
    ("config", "dtype", "expected"),
    [
        (MATRIX, "bf16", 128 * 64 * 2 * 4),  # of five stages one is worked on
        (MATRIX._replace(stages=2), "bf16", 128 * 64 * 2),
        (STREAM, "bf16", 10922),  # no pipeline: a third of the tile of 8 x 2048 x 2 bytes
        (STREAM, "fp32", 21845),
    ],
)
def test_bytes_in_flight_by_hand(config, dtype, expected):
    assert config.in_flight_bytes(dtype) == expected


def test_bytes_in_flight_end_where_k_does():
    assert MATRIX.in_flight_bytes("bf16", 4 * 64 * 4) == 128 * 64 * 2 * 4  # 4 parts of 4 steps
    assert MATRIX.in_flight_bytes("bf16", 4 * 64 * 3) == 128 * 64 * 2 * 3
    assert STREAM.in_flight_bytes("bf16", 1024) == 8 * 1024 * 2 // 3  # half the tile lies beyond k


def test_whole_tiles_by_hand():
    assert MATRIX.even(1280, 8192)  # 10 x 128, 128 x 64
    assert not MATRIX.even(1279, 8192)
    assert not MATRIX.even(1280, 8200)
    assert not STREAM.even(8192, 1024)  # a step is 2048


def test_programs_and_partial_sums_by_hand():
    assert MATRIX.programs(1280) == 40  # 10 tiles in 4 parts
    assert MATRIX.programs(1281) == 44
    assert MATRIX.partial_elements(1281) == 44 * 128 * 16
    assert STREAM.programs(1281) == 161
    assert STREAM.partial_elements(1281) == 0


def test_beyond_64_tokens_a_class_ends_at_a_power_of_two_and_the_last_one_nowhere():
    assert [token_class(tokens) for tokens in (65, 128, 129, 256, 257, 8192, 8193, 10**6)] == [
        *(128, 128, 256, 256, 512, 8192, 8192, 8192)
    ]


def test_tiles_of_many_tokens_by_hand():
    tile = LinearConfig(128, 64, 64, 3, 4, 4)
    assert tile.programs(300, 130) == 27  # 3 x 3 tiles in three parts
    assert tile.partial_elements(300, 130) == 27 * 128 * 64
    assert tile._replace(split=1).partial_elements(300, 130) == 0


def test_the_token_tile_holds_the_tokens():
    tiles = {tokens: token_class(tokens) for tokens in range(1, 65)}
    assert [tiles[tokens] for tokens in (1, 2, 3, 4, 5, 8, 16, 17, 32, 33, 64)] == [
        1,
        2,
        4,
        4,
        16,
        16,
        16,
        32,
        32,
        64,
        64,
    ]
    assert all(tile >= tokens for tokens, tile in tiles.items())


def test_a_layer_of_llama_70b_is_four_linears_a_degree():
    # n: 64 + 2 x 8 heads of 128, hidden 8192, 2 x 28672, hidden; the first and third are cut in n, the others in k
    found = {(shard.layer, shard.tp): (shard.n, shard.k) for shard in layer_shards()}
    assert found == {
        (layer, tp): cut
        for tp in (1, 2, 4, 8)
        for layer, cut in {
            "qkv": (10240 // tp, 8192),
            "o": (8192, 8192 // tp),
            "gate_up": (57344 // tp, 8192),
            "down": (8192, 28672 // tp),
        }.items()
    }


def test_a_degree_that_does_not_divide_the_model_is_refused():
    with pytest.raises(UserError, match="tp=3"):
        layer_shards(tp=(3,))
