"""Shards of a model put together are the model, whatever its width."""

import json
from dataclasses import replace

import pytest
import torch

from kernels.decoder_layer import part_names
from specs import models
from specs.models import MODELS, scaled_model
from specs.parallel import Split
from suites.decoder import model
from suites.decoder.model import ModelShard
from suites.decoder.worker import ModelRunConfig
from suites.decoder.workload import StepWorkload

CPU = torch.device("cpu")
TINY = MODELS["tiny"]


def shards(tp, model=TINY):
    return [ModelShard(Split(model, tp), index, "fp32", CPU) for index in range(tp)]


def layers(tp, number=3, parts=()):
    return [shard.layer(number, parts) for shard in shards(tp)]


def put_together(tp, name, dim):
    return torch.cat([one[name] for one in layers(tp)], dim)


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_rows_of_column_parallel_weights_make_the_whole(tp):
    (whole,) = layers(1)
    gates, ups = zip(*(one["gate_up_weight"].chunk(2) for one in layers(tp)), strict=True)
    assert torch.equal(torch.cat((*gates, *ups)), whole["gate_up_weight"])
    heads = torch.cat([shard.head() for shard in shards(tp)])
    assert torch.equal(heads, shards(1)[0].head())


@pytest.mark.parametrize("tp", [2, 4, 8])
@pytest.mark.parametrize("name", ["o_weight", "down_weight"])
def test_columns_of_row_parallel_weights_make_the_whole(tp, name):
    (whole,) = layers(1)
    assert torch.equal(put_together(tp, name, 1), whole[name])


@pytest.mark.parametrize(("tp", "copies"), [(2, 1), (4, 2), (8, 4)])
def test_queries_are_cut_and_kv_heads_are_repeated_once_they_are_fewer_than_ranks(tp, copies):
    (whole,) = layers(1)
    queries, keys = TINY.heads * TINY.head_dim, TINY.kv_heads * TINY.head_dim
    parts = [one["qkv_weight"] for one in layers(tp)]
    assert torch.equal(torch.cat([part[: queries // tp] for part in parts]), whole["qkv_weight"][:queries])
    each = max(TINY.head_dim, keys // tp)
    found = torch.cat([part[queries // tp :][:each] for part in parts[::copies]])
    assert torch.equal(found, whole["qkv_weight"][queries : queries + keys])
    assert all(torch.equal(parts[i][queries // tp :], parts[i - i % copies][queries // tp :]) for i in range(tp))


def test_a_fused_layer_has_the_same_rows_with_gate_and_up_in_turn():
    (apart,), (fused,) = layers(1), layers(1, parts=part_names("triton"))
    gate, up = apart["gate_up_weight"].chunk(2)
    assert torch.equal(fused["gate_up_weight"][0::2], gate)
    assert torch.equal(fused["gate_up_weight"][1::2], up)


def test_a_vocabulary_that_does_not_divide_leaves_the_last_shard_shorter():
    small = scaled_model(TINY, 1)
    odd = Split(small, 1).model.__class__(**{**vars(small), "vocab": 515})
    parts = [shard.vocab_slice for shard in shards(4, odd)]
    assert [(part.start, part.stop) for part in parts] == [(0, 129), (129, 258), (258, 387), (387, 515)]


def test_weights_are_normal_and_scaled_to_what_they_add_up():
    (whole,) = layers(1)
    for name, k in (("qkv_weight", 256), ("o_weight", 256), ("gate_up_weight", 256), ("down_weight", 512)):
        assert whole[name].std() * k**0.5 == pytest.approx(1, rel=0.02)
        assert abs(whole[name].mean()) < 1e-3
        assert not (whole[name] == 0).any()


def test_no_two_layers_and_no_two_rows_are_the_same():
    three, four = (shards(1)[0].layer(number, ()) for number in (3, 4))
    assert not torch.equal(three["down_weight"], four["down_weight"])
    assert len(torch.unique(three["gate_up_weight"], dim=0)) == 1024


def test_neighbouring_sequences_differ_and_repeat_after_the_period():
    keys = model.synthetic_kv("layer 0 key", 9, 5, slice(0, 2), 16, "fp32", CPU)
    assert torch.equal(keys[0], keys[model.DISTINCT_SEQUENCES])
    assert len(torch.unique(keys.flatten(1), dim=0)) == model.DISTINCT_SEQUENCES
    assert keys[0].data_ptr() != keys[model.DISTINCT_SEQUENCES].data_ptr()  # memory of its own
    ids = model.synthetic_tokens(9, 5, 4096)
    assert len(torch.unique(ids, dim=0)) == model.DISTINCT_SEQUENCES
    assert ids.min() >= 0
    assert ids.max() < 4096


def test_a_rank_learns_the_shapes_of_a_model_from_a_file(monkeypatch):
    mine = replace(TINY, slug="mine", layers=6)
    monkeypatch.setattr(models, "_FROM_CONFIG", {"mine": mine})
    told = json.loads(json.dumps(StepWorkload("mine", 4, 2, 2, 16).to_json()))
    assert "shapes" not in StepWorkload("tiny", 4, 2, 2, 16).to_json()
    monkeypatch.setattr(models, "_FROM_CONFIG", {})
    how = {"deployment": {"tp": 1}, "dtype": "bf16", "implementation": "torch", "backend": "gloo"}
    assert ModelRunConfig(**how, **told).part.full_model == mine
