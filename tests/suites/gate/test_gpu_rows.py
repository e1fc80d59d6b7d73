"""The tests on a GPU try each row of each committed table with the kernel that takes it: seen here without one."""

import pytest

from kernels.configs.config import LinearConfig
from kernels.configs.dispatch import tuned_linear_table
from specs.gpus import ARCHS
from tests.gpu.config_shapes import gemm_configs, ragged_gemm, ragged_skinny, skinny_configs

TABLES = [arch for arch in ARCHS if tuned_linear_table(arch)]


@pytest.mark.parametrize("arch", TABLES)
def test_every_row_is_tried_by_its_own_kernel_at_a_shape_that_it_takes(arch):
    table = tuned_linear_table(arch)
    few, many = skinny_configs(table), gemm_configs(table)
    assert few | many == {row.config for row in table.rows}
    assert few and many  # noqa: PT018
    for config in few:
        assert 0 < ragged_skinny(config)["tokens"] <= config.tokens
    for config in many:
        assert ragged_gemm(config)["tokens"] > config.tokens


def test_a_row_of_the_gemm_is_none_of_the_skinny_kernel():
    with pytest.raises(KeyError):
        ragged_skinny(LinearConfig(128, 128, 64, 1, 8, 3))
