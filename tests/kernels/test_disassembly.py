"""Code read together is what the wheel's cuobjdump reads of each cubin alone."""

import subprocess

import pytest
import triton

from kernels import ceilings, rmsnorm, skinny
from kernels import compile as kernels_compile
from kernels.compile import build_cubin, check_disassembler, compile_variant, disassemble
from kernels.configs.config import LinearConfig
from kernels.inspection.sass import count_opcodes
from specs.errors import UserError
from specs.gpus import ARCHS
from tests.kernels.compiled_together import skip_without_disassembler


def by_cuobjdump(cubin, path):
    path.write_bytes(cubin)
    command = [triton.knobs.nvidia.cuobjdump.path, "-sass", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("arch", ARCHS)
def test_each_cubin_has_the_instructions_that_cuobjdump_finds(arch, tmp_path):
    skip_without_disassembler(arch)
    variants = [
        rmsnorm.variant(4096, "bf16"),
        ceilings.read_variants("bf16")[0],
        skinny.variant(LinearConfig(64, 16, 64, 3, 4, 4), "bf16"),
    ]
    cubins = [build_cubin(one, arch).code for one in variants]
    alone = [count_opcodes(by_cuobjdump(cubin, tmp_path / "alone.cubin")) for cubin in cubins]
    together = [count_opcodes(sass) for sass in disassemble(cubins, arch)]
    assert together == alone
    assert len({*map(str, alone)}) == len(variants), "alike, they could be exchanged"


def test_every_architecture_can_be_read_but_sm_103_by_triton_3_6():
    known = kernels_compile._disassembler_archs()
    lacking = {arch for arch in ARCHS if kernels_compile._disassembler_name(arch) not in known}
    assert lacking == ({"sm_103"} if triton.__version__.startswith("3.6.") else set())


def test_an_architecture_that_the_disassembler_lacks_is_refused_before_it_is_compiled_for(monkeypatch):
    monkeypatch.setattr(kernels_compile, "_disassembler_archs", lambda: frozenset({"SM80", "SM90a"}))
    monkeypatch.setattr("kernels.compile.build_cubin", lambda *args: pytest.fail("compiled in vain"))
    check_disassembler("sm_90")
    with pytest.raises(UserError, match=r"the disassembler of triton \S+ does not know sm_103; install a newer triton"):
        compile_variant(ceilings.read_variants("bf16")[0], "sm_103")
    with pytest.raises(UserError, match="sm_103"):
        disassemble([b""], "sm_103")


def test_a_help_that_lists_no_architectures_refuses_none(monkeypatch):
    monkeypatch.setattr(kernels_compile, "_disassembler_archs", frozenset)
    check_disassembler("sm_103")
