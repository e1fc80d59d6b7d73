"""The loop that multiplies: its barriers and its fences, in machine code by hand and in what the compiler makes."""

import pytest

from kernels import gemm, skinny
from kernels.ceilings import read_variants
from kernels.compile import compile_variants
from kernels.configs.attention import SplitConfig
from kernels.configs.config import LinearConfig, compiles_well, triton_version
from kernels.decode_attention import attention_variant as attention
from kernels.inspection.sass import basic_blocks, multiplying_loop, natural_loops


def sass(*lines):
    """Lines of machine code, 16 bytes each from address 0: `@P0 BRA 0x10`."""
    told = [f"        /*{16 * at:04x}*/                   {line} ;" for at, line in enumerate(lines)]
    return "\n".join([*told, f"        /*{16 * len(told):04x}*/                   BRA {16 * len(told):#x};"])


BAR, FENCE = "BAR.SYNC.DEFER_BLOCKING 0x0", "FENCE.VIEW.ASYNC.S"
FFMA, HGMMA = "FFMA R3, R4, R5, R3", "HGMMA.64x16x16.F32.BF16 R24, gdesc[UR4], R24"
COPY, WAIT = "LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64], P0", "DEPBAR.LE SB0, 0x2"

PIPELINED = sass("MOV R1, R2", BAR, COPY, WAIT, BAR, FENCE, HGMMA, BAR, COPY, "@!P0 BRA 0x30", BAR, FENCE, "EXIT")


def test_a_loop_begins_where_the_branch_leads_back_to():
    """Two of four barriers stand between 0x30 and 0x90."""
    assert natural_loops(basic_blocks(PIPELINED)) == {0x30: {0x30}}
    loop = multiplying_loop(PIPELINED)
    assert (loop.barriers, loop.fences) == (2, 1)


def test_blocks_end_where_code_branches_and_begin_where_it_is_branched_to():
    code = basic_blocks(sass("MOV R1, R2", "@P0 BRA 0x30", "NOP", "BRA.U !UP0, 0x10", "@P1 EXIT", "EXIT"))
    assert {at: block.targets for at, block in code.items()} == {
        0x0: (0x10,),
        0x10: (0x30, 0x20),
        0x20: (0x30,),
        0x30: (0x10, 0x40),  # an operand ahead of the target is a condition too
        0x40: (),  # code goes on behind an exit that only some threads take
        0x60: (0x60,),  # what fills the end of every kernel
    }
    assert code[0x10].opcodes == ("BRA",)


def test_code_without_a_loop_or_without_multiplications_has_none():
    assert multiplying_loop("") is None
    assert multiplying_loop(sass(FFMA, BAR, "EXIT")) is None
    assert multiplying_loop(sass("LDG.E.128 R4, [R2.64]", "@P0 BRA 0x0", "EXIT")) is None


@pytest.mark.parametrize("opcode", ["BAR.SYNC.DEFER_BLOCKING 0x0", "BAR.RED.POPC.DEFER_BLOCKING 0x0"])
def test_each_barrier_counts_and_what_lets_a_warp_go_on_does_not(opcode):
    assert multiplying_loop(sass(opcode, FFMA, opcode, "@P0 BRA 0x0", "EXIT")).barriers == 2
    others = ("BAR.ARV 0x1, 0x80", "WARPSYNC 0xffffffff", "LDGDEPBAR", "DEPBAR.LE SB0, 0x0", "MEMBAR.ALL.CTA")
    assert multiplying_loop(sass(*others, FFMA, "@P0 BRA 0x0", "EXIT")).barriers == 0


def test_of_loops_around_each_other_the_innermost_that_multiplies_counts():
    inner = (BAR, FFMA, "@P0 BRA 0x20")  # at 0x20
    assert multiplying_loop(sass(BAR, BAR, *inner, FFMA, FFMA, BAR, "@P1 BRA 0x0", "EXIT")).barriers == 1
    spin = ("SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R6", "@!P0 BRA 0x10")  # at 0x10, multiplies nothing
    assert multiplying_loop(sass(BAR, *spin, FFMA, BAR, "@P1 BRA 0x0", "EXIT")).barriers == 2


def test_of_loops_beside_each_other_the_one_with_matrix_instructions_counts():
    merge = (BAR, BAR, BAR, FFMA, FFMA, FFMA, "@P0 BRA 0x30", "EXIT")
    assert multiplying_loop(sass(BAR, HGMMA, "@P0 BRA 0x0", *merge)).barriers == 1


def test_what_an_iteration_may_skip_is_not_counted():
    """A persistent GEMM: 0x20 goes past the epilogue's barriers; its tiles run through one loop."""
    assert multiplying_loop(sass(BAR, HGMMA, "@P0 BRA 0x60", BAR, FENCE, BAR, "@P1 BRA 0x0", "EXIT")).barriers == 1
    skipped_never = sass(BAR, HGMMA, "@P0 BRA 0x80", BAR, FENCE, BAR, "@P1 BRA 0x0", "EXIT", "EXIT")
    assert multiplying_loop(skipped_never).barriers == 3


def test_code_behind_the_end_that_returns_into_a_loop_belongs_to_it():
    """The compiler lays the wait for a copy that is late there; the branch back from it begins no loop of its own."""
    late = ("SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R6", "@!P0 BRA 0x60", "BRA 0x20")
    code = sass(BAR, "@!P0 BRA 0x60", BAR, HGMMA, "@P1 BRA 0x0", "EXIT", *late)
    assert set(natural_loops(basic_blocks(code))) == {0x0, 0x60}
    assert multiplying_loop(code).barriers == 2


@pytest.mark.parametrize(
    ("lines", "fences"),
    [
        ((COPY, WAIT, BAR, FENCE, HGMMA), 1),
        ((COPY, WAIT, BAR, HGMMA), 0),  # what triton 3.6 makes
        ((COPY, WAIT, BAR, HGMMA, FENCE), 0),  # too late
        ((COPY, FENCE, HGMMA, FENCE, HGMMA), 1),
        (("UTMALDG.2D [UR4], [UR6]", BAR, HGMMA), None),  # the copy engine writes through the proxy
        ((COPY, WAIT, BAR, "HMMA.16816.F32.BF16 R4, R8, R2, R4"), None),  # registers are no matter of a proxy
        ((COPY, WAIT, BAR, FFMA), None),
        ((COPY, WAIT, "@P2 BRA 0x40", FENCE, HGMMA), 0),  # skipped by some
    ],
)
def test_fences_stand_ahead_of_the_matrix_instruction_that_reads_what_threads_copied(lines, fences):
    assert multiplying_loop(sass(*lines, "@P1 BRA 0x0", "EXIT")).fences == fences


def loops(variants, arch):
    return [multiplying_loop(one.sass) for one in compile_variants(variants, arch)]


FENCED = tuple(map(int, str(triton_version()).split(".")[:2])) >= (3, 7)


def test_real_loops_on_the_matrix_units():
    configs = [LinearConfig(64, 16, 128, 1, 4, 3), LinearConfig(64, 16, 64, 2, 4, 4, tma=True)]
    big = gemm.variant(LinearConfig(128, 128, 64, 2, 8, 4, tma=True), "bf16")
    pointers, fetched, both = loops([*(skinny.variant(one, "bf16") for one in configs), big], "sm_90")
    assert (pointers.barriers, pointers.fences) == (2, 1 if FENCED else 0)
    assert (fetched.barriers, fetched.fences) == ((2, 1) if FENCED else (3, 0))  # x by cp.async, W by the copy engine
    assert (both.barriers, both.fences) == (3 if FENCED else 4, None)


def test_real_loops_of_multiply_adds():
    """The one that the compiler lays out anew in each iteration is what tuning leaves out."""
    pipelined, one_stage = (
        LinearConfig(8, 1, 512, 1, 2, 3, matrix=False),
        LinearConfig(8, 1, 512, 1, 2, 1, matrix=False),
    )
    found = loops([skinny.variant(one, "bf16") for one in (pipelined, one_stage)], "sm_90")
    assert [one.fences for one in found] == [None, None]
    assert found[0].barriers == pipelined.pipeline_barriers == 2
    assert (found[1].barriers == one_stage.pipeline_barriers == 0) == compiles_well(one_stage)
    assert compiles_well(one_stage) or found[1].barriers == 8


def test_real_code_beside_linears():
    decode = attention(SplitConfig(64, 4, 3, 20), "bf16", group=8, head_dim=128)
    found, none = loops([decode, read_variants("bf16")[0]], "sm_90")
    assert found.barriers == 6  # for its copies of K and of V, and to share maxima and weights between warps
    assert none is None
