"""Choosing without silicon: what was measured stays, what spills is passed over, what is in use is preferred."""

from collections import Counter
from types import SimpleNamespace

import pytest

from kernels.compile import CompiledKernel
from kernels.configs.config import LinearConfig
from kernels.configs.cost_model import predict_skinny, skinny_programs_per_sm
from kernels.configs.dispatch import (
    MEASURED_BASIS,
    STATIC_BASIS,
    ConfigTable,
    LinearRow,
    format_table,
    load_linear_table,
    ranked_candidates,
)
from kernels.tuning import tune
from specs.gpus import ARCHS
from specs.parallel import Shard

QKV = Shard("llama-3-70b", 8, 1, "qkv", 1280, 8192)
AMPERE = ARCHS["sm_80"]  # one form a configuration: nothing launches dependently


def test_choosing_statically_keeps_what_was_measured(monkeypatch, tmp_path):
    old = LinearRow("bf16", 16, 2, 8192, LinearConfig(64, 16, 64, 1, 4, 4), 1e-6, STATIC_BASIS)
    measured = LinearRow("bf16", 16, 1, 8192, LinearConfig(64, 16, 64, 3, 4, 4), 2e-6, MEASURED_BASIS)
    made = {MEASURED_BASIS: {"gpu": "NVIDIA H200"}}
    (tmp_path / "sm_90.json").write_text(format_table(ConfigTable("sm_90", made, (measured, old))))
    better = [LinearRow("bf16", 16, n, 8192, LinearConfig(128, 16, 64, 1, 4, 4), 1e-7, STATIC_BASIS) for n in (1, 2, 3)]
    monkeypatch.setattr(tune, "static_rows", lambda on, dtype, shards: iter(better))
    said = []
    table = load_linear_table(tune.tune_static(ARCHS["sm_90"], "bf16", [QKV], tmp_path, said.append))
    assert table.rows == (measured, *better[1:])
    assert table.made[MEASURED_BASIS] == {"gpu": "NVIDIA H200"}
    assert table.made[STATIC_BASIS]["gpu"] == "h200_sxm"
    assert said == ["sm_90: 3 rows, 1 of them measured; attention keeps to its rule"]


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that says of a configuration what the test plants, and counts how often it is asked."""
    planted = SimpleNamespace(spills=set(), asked=[])

    def compiles(variant, arch):
        config = next(one for one in planted.configs if tune.variant(one, "bf16") == variant)
        planted.asked.append(config)
        return CompiledKernel(arch, 64, 16 if config in planted.spills else 0, 1024, "", "")

    monkeypatch.setattr(tune, "compile_variant", compiles)
    tune.compiled_programs_per_sm.cache_clear()
    yield planted
    tune.compiled_programs_per_sm.cache_clear()


def test_a_configuration_that_spills_is_not_chosen(compiler):
    compiler.configs = [config for config, _ in ranked_candidates(AMPERE, "bf16", tokens=1, n=1280, k=8192)]
    first = next(tune.static_rows(AMPERE, "bf16", [QKV])).config
    compiler.spills = set(compiler.configs[:10])
    tune.compiled_programs_per_sm.cache_clear()
    assert first in compiler.configs[:10]
    row = next(tune.static_rows(AMPERE, "bf16", [QKV]))
    assert row.config in compiler.configs[10:]
    assert (row.basis, row.tokens, row.n, row.k) == (STATIC_BASIS, 1, 1280, 8192)
    assert len(compiler.asked) == 4 + 10 + 4


def test_a_configuration_that_spills_where_launches_are_dependent_is_not_chosen_either(monkeypatch):
    def compiles(variant, arch):
        return CompiledKernel(arch, 64, 8 if variant.constexprs["PREFETCH"] else 0, 1024, "", "")

    monkeypatch.setattr(tune, "compile_variant", compiles)
    tune.compiled_programs_per_sm.cache_clear()
    config = LinearConfig(64, 16, 128, 1, 4, 4)
    assert tune.compiled_programs_per_sm(config, "bf16", AMPERE, tokens=16, even=True) > 0
    assert tune.compiled_programs_per_sm(config, "bf16", ARCHS["sm_90"], tokens=16, even=True) == 0
    tune.compiled_programs_per_sm.cache_clear()


def test_what_is_in_use_is_taken_where_it_costs_little(compiler):
    shape = {"tokens": 1, "n": QKV.n, "k": QKV.k}
    compiler.configs = [config for config, _ in ranked_candidates(AMPERE, "bf16", **shape)]
    best = tune._static_row(AMPERE, "bf16", Counter(), **shape)

    def seconds(config):
        programs = skinny_programs_per_sm(AMPERE, config, "bf16", registers=64, shared=1024)
        return predict_skinny(config, AMPERE.representative, programs, "bf16", **shape).seconds

    near = next(config for config in compiler.configs[8:] if seconds(config) < 1.029 * best.seconds)
    far = next(config for config in compiler.configs[20:] if seconds(config) > 1.04 * best.seconds)
    assert tune._static_row(AMPERE, "bf16", Counter({near: 1}), **shape).config == near
    assert tune._static_row(AMPERE, "bf16", Counter({far: 9}), **shape).config == best.config
