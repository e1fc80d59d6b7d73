"""Code read together is what the wheel's cuobjdump reads of each cubin alone."""

import subprocess

import pytest
import triton

from kernels import read, rmsnorm, skinny
from kernels.compile import built
from kernels.disassembly import disassemble
from kernels.inspection.machine_code import opcodes
from kernels.tuning.config import Config
from specs.archs import ARCHS


def by_cuobjdump(cubin, path):
    path.write_bytes(cubin)
    command = [triton.knobs.nvidia.cuobjdump.path, "-sass", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("arch", ARCHS)
def test_each_cubin_has_the_instructions_that_cuobjdump_finds(arch, tmp_path):
    variants = [
        rmsnorm.variant(4096, "bf16"),
        read.variants("bf16")[0],
        skinny.variant(Config(64, 16, 64, 3, 4, 4), "bf16"),
    ]
    cubins = [built(one, arch).code for one in variants]
    alone = [opcodes(by_cuobjdump(cubin, tmp_path / "alone.cubin")) for cubin in cubins]
    together = [opcodes(sass) for sass in disassemble(cubins, arch)]
    assert together == alone
    assert len({*map(str, alone)}) == len(variants), "alike, they could be exchanged"
