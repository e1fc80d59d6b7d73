"""What fits an SM, by hand from the limits in the CUDA C++ programming guide."""

import pytest

from specs.errors import UserError
from specs.gpus import ARCHS, blocks_per_sm, find_arch


@pytest.mark.parametrize(
    ("name", "registers", "shared_bytes", "warps", "blocks"),
    [
        ("sm_90", 168, 0, 4, 3),  # 168 x 32 = 21 x 256 a warp, 21504 a block: 65536 / 21504 = 3.05
        ("sm_90", 32, 0, 4, 16),  # 64 warps / 4; registers would allow 65536 / 4096 = 16 as well
        ("sm_90", 33, 0, 4, 12),  # 1056 a warp is handed out as 1280: 65536 / 5120 = 12.8, where 1056 would give 15
        ("sm_90", 128, 0, 32, 0),  # 128 x 1024 threads are twice the registers there are
        ("sm_90", 32, 73728, 4, 3),  # 228 x 1024 / (73728 + 1024) = 3.12
        ("sm_90", 32, 227 * 1024, 4, 1),
        ("sm_90", 32, 227 * 1024 + 1, 4, 0),
        ("sm_80", 32, 82 * 1024, 4, 1),  # two and their 1 KiB each are 166 KiB of 164
        ("sm_80", 32, 81 * 1024, 4, 2),  # 164 of 164
        ("sm_89", 32, 99 * 1024, 4, 1),
        ("sm_89", 32, 99 * 1024 + 1, 4, 0),
        ("sm_86", 16, 0, 1, 16),  # each of the next three by its limit of blocks: 48 or 64 warps would hold more
        ("sm_120", 16, 0, 1, 24),
        ("sm_100", 16, 0, 1, 32),
        ("sm_86", 16, 0, 8, 6),  # 48 warps / 8
        ("sm_80", 16, 0, 8, 8),  # 64 warps / 8
    ],
)
def test_blocks_per_sm_by_hand(name, registers, shared_bytes, warps, blocks):
    assert blocks_per_sm(ARCHS[name], registers=registers, shared_bytes=shared_bytes, warps=warps) == blocks


@pytest.mark.parametrize(
    ("name", "shared_kib", "warps", "blocks", "matrix", "tma"),
    [
        ("sm_80", 164, 64, 32, "HMMA", False),
        ("sm_86", 100, 48, 16, "HMMA", False),
        ("sm_89", 100, 48, 24, "HMMA", False),
        ("sm_90", 228, 64, 32, "HGMMA", True),
        ("sm_100", 228, 64, 32, "UTCHMMA", True),
        ("sm_103", 228, 64, 32, "UTCHMMA", True),
        ("sm_120", 100, 48, 24, "HMMA", True),
    ],
)
def test_limits_are_those_of_the_programming_guide(name, shared_kib, warps, blocks, matrix, tma):
    row = ARCHS[name]
    assert (row.shared_bytes, row.shared_bytes_per_block) == (shared_kib * 1024, (shared_kib - 1) * 1024)
    assert (row.warps, row.blocks, row.matrix) == (warps, blocks, matrix)
    assert (row.tma, row.dependent_launch) == (tma, tma)  # both came with sm_90


@pytest.mark.parametrize("row", ARCHS.values(), ids=lambda row: row.name)
def test_the_gpu_that_stands_for_an_arch_is_of_it_and_tells_what_predictions_take(row):
    gpu = row.representative
    assert gpu.arch == {"sm_86": "sm_89"}.get(row.name, row.name)
    assert gpu.sms
    assert {"fp32", "bf16", "fp16"} <= set(gpu.flops_per_second)


def test_an_unknown_arch_is_refused_with_all_that_are_known():
    with pytest.raises(UserError, match=r"unknown architecture 'sm_75'.*sm_80, sm_86, sm_89, sm_90"):
        find_arch("sm_75")
    assert find_arch("sm_90") is ARCHS["sm_90"]
