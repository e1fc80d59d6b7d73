"""What is chosen at run time: ties in the order that is written down, and something that fits for every call."""

from math import exp

import pytest
import torch

from kernels.configs import dispatch
from kernels.configs.config import SKINNY_TOKEN_CLASSES, LinearConfig, layer_shards
from kernels.configs.cost_model import Prediction, needed_bytes_per_sm, skinny_programs_per_sm
from kernels.configs.dispatch import (
    MEASURED_BASIS,
    STATIC_BASIS,
    ConfigTable,
    LinearRow,
    rank_configs,
    ranked_candidates,
    rule_config,
)
from specs.errors import UserError
from specs.gpus import ARCHS, GPUS

SHARDS = layer_shards()
SHAPE = {"tokens": 16, "n": 8192, "k": 8192}


def predicted(seconds):
    return Prediction(seconds, 1, 1, 1)


def first(*pairs):
    """The best of (config, seconds), whichever is named first."""
    told = [(config, predicted(seconds)) for config, seconds in pairs]
    (best,) = {rank_configs(order)[0][0] for order in (told, told[::-1])}
    return best


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (LinearConfig(64, 16, 64, 8, 8, 6), LinearConfig(128, 16, 128, 1, 4, 3, tma=True)),  # pointers before all else
        (LinearConfig(64, 16, 64, 2, 8, 6), LinearConfig(128, 16, 128, 3, 4, 3)),  # then fewer parts of k
        (LinearConfig(64, 16, 64, 2, 8, 3), LinearConfig(128, 16, 128, 2, 4, 4)),  # then fewer stages
        (LinearConfig(128, 16, 64, 2, 8, 3), LinearConfig(64, 16, 128, 2, 4, 3)),  # then more rows
    ],
)
def test_ties_go_in_the_written_order(better, worse):
    assert first((better, 10e-6), (worse, 10e-6)) == better
    assert first((better, 10.5e-6), (worse, 10e-6)) == worse, "five percent are no tie"


def test_what_does_not_fit_is_left_out():
    a, b = LinearConfig(64, 16, 64, 1, 4, 3), LinearConfig(128, 16, 64, 1, 4, 3)
    assert rank_configs([(a, predicted(None)), (b, predicted(1e-6))]) == [(b, predicted(1e-6))]


@pytest.mark.parametrize("middle", [exp(-10.01), exp(-10.03)])
def test_a_difference_of_a_fiftieth_of_a_percent_is_a_tie_wherever_it_lies(middle):
    whole, parted = LinearConfig(64, 16, 64, 1, 4, 3), LinearConfig(64, 16, 64, 2, 4, 3)
    assert first((whole, middle * 1.0001), (parted, middle * 0.9999)) == whole


def test_the_rule_has_enough_in_flight_on_h200_for_every_shard():
    need = needed_bytes_per_sm(GPUS["h200_sxm"])
    for shard in SHARDS:
        for tokens in SKINNY_TOKEN_CLASSES:
            _, prediction = ranked_candidates(ARCHS["sm_90"], "bf16", tokens=tokens, n=shard.n, k=shard.k)[0]
            assert prediction.in_flight_bytes_per_sm >= need, (shard, tokens)


@pytest.mark.parametrize("on", ARCHS.values(), ids=lambda on: on.name)
def test_every_call_on_a_shard_of_llama_70b_gets_a_configuration_that_fits(on):
    for shard in SHARDS:
        for tokens in range(1, 65):
            config = dispatch.choose_config(on.name, "bf16", tokens=tokens, n=shard.n, k=shard.k).config
            assert config.tokens >= tokens
            assert on.tma or not config.tma
            assert skinny_programs_per_sm(on, config, "bf16") > 0, config


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("on", ARCHS.values(), ids=lambda on: on.name)
def test_odd_shapes_get_a_configuration(on, dtype):
    for tokens in (1, 3, 5, 17, 64):
        for n, k in ((1, 1), (1, 1025), (13, 1), (21, 2500), (33, 64), (100, 100)):
            assert rule_config(on, dtype, tokens=tokens, n=n, k=k).tokens >= tokens


@pytest.fixture
def of(monkeypatch):
    """Choices from a planted table."""

    def planted(table, **shape):
        monkeypatch.setattr(dispatch, "tuned_linear_table", lambda name: table)
        dispatch.choose_config.cache_clear()
        return dispatch.choose_config("sm_90", "bf16", **shape)

    yield planted
    dispatch.choose_config.cache_clear()


@pytest.mark.parametrize("basis", [MEASURED_BASIS, STATIC_BASIS])
def test_a_row_in_reach_is_taken_on_its_grounds(of, basis):
    config = LinearConfig(64, 16, 128, 8, 4, 3)
    table = ConfigTable("sm_90", rows=(LinearRow("bf16", 16, 8192, 8192, config, 1e-6, basis),))
    assert of(table, **SHAPE) == (config, basis)
    assert of(table, **SHAPE | {"tokens": 5}) == (config, basis)
    assert str(of(table, **SHAPE)) == f"matrix 64x16x128 /8 w4 s3 ({basis})"


@pytest.mark.parametrize("table", [None, ConfigTable("sm_90")])
def test_without_a_row_it_is_the_rule_that_decides_and_it_says_so(of, table):
    assert of(table, **SHAPE) == (rule_config(ARCHS["sm_90"], "bf16", **SHAPE), "rule")


def test_an_arch_without_table_and_limits_is_refused():
    with pytest.raises(UserError, match="unknown architecture 'sm_75'"):
        dispatch.choose_config("sm_75", "bf16", **SHAPE)


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ((8, 0), "sm_80"),
        ((8, 7), "sm_86"),
        ((9, 0), "sm_90"),
        ((10, 3), "sm_103"),
        ((12, 1), "sm_120"),
        ((7, 5), "sm_80"),
    ],
)
def test_a_device_takes_the_newest_known_arch_that_is_no_newer_than_itself(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    dispatch.device_arch.cache_clear()
    assert dispatch.device_arch(torch.device("cuda", 0)) == name
    dispatch.device_arch.cache_clear()


def test_cpu_tensors_which_only_the_interpreter_takes_are_served_as_on_the_oldest():
    assert dispatch.device_arch(torch.device("cpu")) == "sm_80"
