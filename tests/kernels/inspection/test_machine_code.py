"""Reading SASS: opcodes, widths and families, on lines by hand and on what the compiler makes today."""

import pytest

from kernels.compile import compile_variant
from kernels.configs.config import LinearConfig
from kernels.inspection.sass import base_opcode, count_opcodes, load_bits, narrowest_load_bits, summarise_opcodes
from kernels.skinny import variant

SASS = """
 Function _skinny:
  REG:48 STACK:0 SHARED:1024 LOCAL:0

        code for sm_90a
                Function : _skinny
        .headerflags    @"EF_CUDA_TEXMODE_UNIFIED EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                          /* 0x00000a00ff017b82 */
                                                                                   /* 0x000e620000000800 */
        /*0010*/               @P0 LDGSTS.E.BYPASS.LTC128B.128 [R5], [R2.64] ;     /* 0x0000000000007919 */
        /*0020*/              @!P1 LDGSTS.E.BYPASS.128 [R5+0x800], [R2.64] ;       /* 0x0000000000007919 */
        /*0030*/             @!UPT UTMALDG.2D [UR4], [UR6] ;                       /* 0x0000000000007919 */
        /*0040*/             @!PT LDS RZ, [RZ] ;                                   /* 0x0000000000007919 */
        /*0050*/                   HGMMA.64x16x16.F32.BF16 R24, gdesc[UR4], R24 ;  /* 0x0000000000007919 */
        /*0060*/               @P2 LDG.E.STRONG.GPU R8, [R6.64] ;                  /* 0x0000000000007919 */
        /*0070*/                   STG.E.128 [R6.64], R8 ;                         /* 0x0000000000007919 */
        /*10080*/                  FFMA R3, R4, R5, R3 ;                           /* 0x0000000000007919 */
"""


def with_load(opcode):
    return SASS + f"        /*10090*/                  {opcode} R8, [R6.64] ;   /* 0x0000000000007919 */\n"


def test_every_instruction_is_counted_once_whatever_its_predicate():
    assert count_opcodes(SASS) == dict.fromkeys(
        [
            "LDC",
            "LDGSTS.E.BYPASS.LTC128B.128",
            "LDGSTS.E.BYPASS.128",
            "UTMALDG.2D",
            "LDS",
            "HGMMA.64x16x16.F32.BF16",
            "LDG.E.STRONG.GPU",
            "STG.E.128",
            "FFMA",
        ],
        1,
    )
    assert count_opcodes(SASS + SASS)["FFMA"] == 2


@pytest.mark.parametrize(
    ("opcode", "bits"),
    [
        ("LDG.E.128", 128),
        ("LDG.E.EF.128.CONSTANT", 128),
        ("LDG.E.64", 64),
        ("LDG.E.ENL2.256", 256),
        ("LDG.E", 32),
        ("LDG.E.U16", 16),
        ("LDG.E.U8.CONSTANT", 8),
        ("LDGSTS.E.BYPASS.LTC128B.128", 128),
        ("LDGSTS.E.LTC128B", 32),  # the suffix is of the cache line, not of the load
        ("LDGDEPBAR", None),
        ("LDS.128", None),
        ("UTMALDG.2D", None),
        ("STG.E.128", None),
    ],
)
def test_bits_of_a_load(opcode, bits):
    assert load_bits(opcode) == bits


def test_families():
    assert [base_opcode(code) for code in ("HGMMA.64x16x16.F32.BF16", "FFMA", "LDG.E.128")] == ["HGMMA", "FFMA", "LDG"]


def test_a_summary_by_hand():
    assert summarise_opcodes(SASS) == {"LDGSTS.128": 2, "UTMALDG": 1, "HGMMA": 1, "LDG.32": 1, "FFMA": 1}
    assert summarise_opcodes(with_load("LDL.64"))["LDL"] == 1
    assert summarise_opcodes(with_load("HMMA.16816.F32.BF16"))["HMMA"] == 1
    assert summarise_opcodes(with_load("UTCHMMA"))["UTCHMMA"] == 1


def test_multiply_adds_in_pairs_are_told():
    assert "FFMA2" in summarise_opcodes(with_load("FFMA2"))


def test_a_narrow_load_is_caught_and_reading_back_partial_sums_is_none():
    assert narrowest_load_bits(SASS) == 128  # LDG.E.STRONG.GPU reads 32 bits of partial sums
    assert narrowest_load_bits(with_load("LDG.E.64")) == 64
    assert narrowest_load_bits(with_load("LDG.E.U16")) == 16
    assert narrowest_load_bits(with_load("LDG.E.128.STRONG.GPU")) == 128
    assert narrowest_load_bits("        /*0000*/                   UTMALDG.2D [UR4], [UR6] ;") is None


def test_what_the_compiler_makes_is_read():
    sass = compile_variant(variant(LinearConfig(128, 16, 64, 2, 4, 4), "bf16"), "sm_90").sass
    found = count_opcodes(sass)
    assert found["EXIT"] >= 1
    assert sum(found.values()) > 200
    assert all(opcode[0].isupper() for opcode in found)
    told = summarise_opcodes(sass)
    # 64 of k are 4 steps of 16, and 128 rows are two of 64: 8 for each copy of the loop's body
    assert told["HGMMA"] % 8 == 0
    assert told["LDGSTS.128"] > 0
    assert any(".STRONG" in opcode for opcode in found), "no partial sums are read back"
    assert narrowest_load_bits(sass) == 128
