"""What one streaming multiprocessor of each NVIDIA architecture holds, and how many programs fit on it."""

from dataclasses import dataclass

from specs.gpus import GPUS, Gpu
from specs.lookup import find

WARP = 32
REGISTERS = 65536
"""32-bit registers of an SM, the same on every architecture here."""

RESERVED_SHARED_BYTES = 1024
"""Shared memory that the system takes of each resident block, from sm_80 on."""


@dataclass(frozen=True)
class Arch:
    """One architecture, by the technical specifications in the CUDA C++ programming guide.

    Attributes:
        name: sm_90, …
        shared_bytes: shared memory of an SM.
        shared_bytes_per_block: the most that one block may ask for.
        warps, blocks: the most that are resident on an SM.
        matrix: its bf16 matrix instruction in SASS: by a warp, by four warps, or by one thread for four.
        tma: whether the bulk tensor copy engine is there.
        dependent_launch: whether a grid may start before the one ahead of it has ended.
        gpu: slug of the GPU that stands for it where a prediction needs bandwidth and SMs; sm_86 borrows sm_89's.
    """

    name: str
    shared_bytes: int
    shared_bytes_per_block: int
    warps: int
    blocks: int
    matrix: str
    tma: bool
    dependent_launch: bool
    gpu: str

    @property
    def representative(self) -> Gpu:
        """The GPU named by `gpu`."""
        return GPUS[self.gpu]


def _arch(name: str, shared_kib: int, warps: int, blocks: int, matrix: str, newer: bool, gpu: str) -> Arch:
    shared = shared_kib * 1024
    return Arch(name, shared, shared - RESERVED_SHARED_BYTES, warps, blocks, matrix, newer, newer, gpu)


ARCHS = {
    row.name: row
    for row in (
        _arch("sm_80", 164, 64, 32, "HMMA", False, "a100_sxm"),
        _arch("sm_86", 100, 48, 16, "HMMA", False, "l40s"),
        _arch("sm_89", 100, 48, 24, "HMMA", False, "l40s"),
        _arch("sm_90", 228, 64, 32, "HGMMA", True, "h200_sxm"),
        _arch("sm_100", 228, 64, 32, "UTCHMMA", True, "b200_sxm"),
        _arch("sm_103", 228, 64, 32, "UTCHMMA", True, "b300_sxm"),
        _arch("sm_120", 100, 48, 24, "HMMA", True, "rtx_pro_6000_server"),
    )
}


def arch(name: str) -> Arch:
    """The architecture called `name`.

    Raises:
        UserError: it is not among those whose limits are known.
    """
    return find(ARCHS, name, "architecture")


def blocks_per_sm(on: Arch, *, registers: int, shared_bytes: int, warps: int) -> int:
    """Blocks that an SM holds at once; 0 where one alone asks for too much.

    Args:
        on: the architecture.
        registers: of a thread; they are handed out to warps in units of 256.
        shared_bytes: that a block asks for.
        warps: of a block.
    """
    if shared_bytes > on.shared_bytes_per_block:
        return 0
    per_warp = -(-registers * WARP // 256) * 256
    return min(
        on.blocks,
        on.warps // warps,
        REGISTERS // (per_warp * warps) if per_warp else on.blocks,
        on.shared_bytes // (shared_bytes + RESERVED_SHARED_BYTES),
    )
