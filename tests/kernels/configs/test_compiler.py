"""Forms that a version of Triton compiles badly: not tried, not run, whatever a table says."""

import pytest

from kernels.configs import config, dispatch
from kernels.configs.config import TOKEN_CLASSES, LinearConfig, compiles_well_with, layer_shards
from kernels.configs.dispatch import STATIC_BASIS, ConfigTable, LinearRow, format_table, rule_config, tuned_linear_table
from kernels.configs.space import skinny_candidates
from kernels.tuning import tune
from kernels.tuning.tune import TuningContext
from specs.gpus import ARCHS
from specs.parallel import Shard

ONE_STAGE = LinearConfig(8, 1, 512, 1, 2, 1, matrix=False)
SHAPE = {"tokens": 1, "n": 8192, "k": 8192}


@pytest.fixture
def with_version(monkeypatch):
    """Choices and candidates as with a version of Triton; None for none."""

    def planted(version):
        monkeypatch.setattr(config, "triton_version", lambda: version)
        dispatch.choose_config.cache_clear()

    yield planted
    dispatch.choose_config.cache_clear()


@pytest.mark.parametrize("version", ["3.6.0", "3.6.1+git1234567", "3.5.1", "2.9"])
def test_multiply_adds_need_a_pipeline_before_triton_3_7(version):
    assert not compiles_well_with(version, ONE_STAGE)
    assert compiles_well_with(version, ONE_STAGE._replace(stages=3))
    assert compiles_well_with(version, LinearConfig(64, 16, 64, 1, 4, 1))


@pytest.mark.parametrize("version", ["3.7.0", "3.7.1", "3.7.1+cu130", "3.10.0", "4.0.0", None])
def test_from_triton_3_7_on_they_need_none(version):
    assert compiles_well_with(version, ONE_STAGE)


def test_the_installed_version_is_that_of_the_module(monkeypatch):
    triton = pytest.importorskip("triton")
    assert config.triton_version() == triton.__version__
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    assert config.triton_version.__wrapped__() is None


@pytest.mark.parametrize("on", ARCHS.values(), ids=lambda on: on.name)
def test_the_space_has_one_stage_forms_from_triton_3_7_on_alone(with_version, on):
    with_version("3.7.1")
    new = skinny_candidates(on, "bf16", **SHAPE)
    with_version("3.6.0")
    old = skinny_candidates(on, "bf16", **SHAPE)
    assert {config.stages for config in new if not config.matrix} == {1, 3}
    assert old == [config for config in new if config.matrix or config.stages > 1]


@pytest.mark.parametrize("name", ARCHS)
def test_no_row_of_a_committed_table_runs_without_a_pipeline_before_triton_3_7(with_version, name):
    with_version("3.6.0")
    for shard in layer_shards():
        for tokens in (tokens for tokens in TOKEN_CLASSES if tokens <= 4):
            found = dispatch.choose_config(name, "bf16", tokens=tokens, n=shard.n, k=shard.k)
            assert found.config.matrix or found.config.stages > 1, (shard, tokens)


def test_some_row_of_a_committed_table_has_no_pipeline():
    """Else the test above would prove nothing."""
    assert any(not row.config.matrix and row.config.stages == 1 for row in tuned_linear_table("sm_80").rows)


def test_in_place_of_a_row_without_a_pipeline_the_rule_decides_and_it_says_so(with_version, monkeypatch):
    table = ConfigTable("sm_90", rows=(LinearRow("bf16", 1, 8192, 8192, ONE_STAGE, 1e-6, STATIC_BASIS),))
    monkeypatch.setattr(dispatch, "tuned_linear_table", lambda name: table)
    with_version("3.7.1")
    assert dispatch.choose_config("sm_90", "bf16", **SHAPE) == (ONE_STAGE, STATIC_BASIS)
    with_version("3.6.0")
    assert dispatch.choose_config("sm_90", "bf16", **SHAPE) == (rule_config(ARCHS["sm_90"], "bf16", **SHAPE), "rule")


def test_a_search_does_not_begin_with_such_a_row_and_keeps_it_in_its_table(with_version, tmp_path):
    row = LinearRow("bf16", 1, 8192, 8192, ONE_STAGE, 1e-6, STATIC_BASIS)
    (tmp_path / "sm_90.json").write_text(format_table(ConfigTable("sm_90", {}, (row,))))
    bound = TuningContext(
        ARCHS["sm_90"], None, "a GPU", "bf16", [Shard("llama-3-70b", 1, 1, "o", 8192, 8192)], tmp_path, print
    )
    for version, tried in (("3.7.1", True), ("3.6.0", False)):
        with_version(version)
        book = tune.linear_tuning(bound)
        assert (ONE_STAGE in [config for hunt in book.jobs for config in hunt.ranked]) == tried
        assert book.table.rows == (row,)
