import pytest

from specs.gpus import find_gpu
from specs.roofline import (
    Ceilings,
    Work,
    compute_seconds,
    floor_seconds,
    limiting_resource,
    memory_seconds,
    ridge_tokens,
    share_of_floor,
)

ROUND = Ceilings(read_bytes_per_second=4e12, flops_per_second={"bf16": 1e15})


def test_a_read_is_bound_by_memory():
    work = Work(flops=10**9, hbm_bytes=4 * 10**9)
    assert memory_seconds(work, ROUND) == 1e-3  # 4e9 / 4e12
    assert compute_seconds(work, "bf16", ROUND) == 1e-6  # 1e9 / 1e15
    assert floor_seconds(work, "bf16", ROUND) == 1e-3
    assert limiting_resource(work, "bf16", ROUND) == "memory"


def test_a_large_product_is_bound_by_compute():
    work = Work(flops=10**13, hbm_bytes=4 * 10**9)
    assert floor_seconds(work, "bf16", ROUND) == 1e-2  # 1e13 / 1e15 against 1e-3
    assert limiting_resource(work, "bf16", ROUND) == "compute"


def test_share_of_floor():
    assert share_of_floor(2e-3, Work(flops=10**9, hbm_bytes=4 * 10**9), "bf16", ROUND) == 0.5


@pytest.mark.parametrize(
    ("dtype", "ceilings"),
    [
        ("fp8", ROUND),
        ("bf16", Ceilings(read_bytes_per_second=None, flops_per_second={"bf16": 1e15})),
    ],
)
def test_an_unknown_ceiling_gives_no_floor(dtype, ceilings):
    work = Work(flops=10**9, hbm_bytes=10**9)
    assert floor_seconds(work, dtype, ceilings) is None
    assert share_of_floor(1.0, work, dtype, ceilings) is None
    assert limiting_resource(work, dtype, ceilings) is None


def test_a_copy_needs_no_peak():
    assert floor_seconds(Work(hbm_bytes=8 * 10**9), "fp8", ROUND) == 2e-3


@pytest.mark.parametrize(
    ("slug", "tokens"),
    [
        ("h200_sxm", 206),  # 989.5e12 / 4.8e12 = 206.1
        ("h100_sxm", 295),  # 989.5e12 / 3.35e12 = 295.4
        ("a100_sxm", 153),  # 312e12 / 2.039e12 = 153.0
        ("b200_sxm", 292),  # 2.25e15 / 7.7e12 = 292.2
    ],
)
def test_ridges_of_published_systems(slug, tokens):
    row = find_gpu(slug)
    assert round(ridge_tokens(2, row.flops_per_second["bf16"], row.hbm_bytes_per_second)) == tokens


def test_the_ridge_is_where_both_sides_meet():
    n, k = 8192, 8192
    tokens = ridge_tokens(2, 1e15, 4e12)  # 2·1e15 / (2·4e12) = 250
    assert tokens == 250
    weights_only = Work(flops=2 * 250 * n * k, hbm_bytes=n * k * 2)
    assert memory_seconds(weights_only, ROUND) == pytest.approx(compute_seconds(weights_only, "bf16", ROUND))


def test_datasheet_ceilings_say_so():
    ceilings = Ceilings.datasheet(find_gpu("h200_sxm"))
    assert ceilings.origin == "datasheet"
    assert ceilings.read_bytes_per_second == 4.8e12
    assert ceilings.flops_per_second["fp8"] == 1979e12
    assert ceilings.launch_seconds is None
