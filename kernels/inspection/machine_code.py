"""Reading SASS: which instructions multiply, which load, and how wide."""

import re
from collections import Counter

MATRIX = ("HGMMA", "UTCHMMA", "HMMA")
"""Matrix instructions: by four warps, by one thread for four warps, by a warp."""

_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)


def opcodes(sass: str) -> Counter[str]:
    """How often each instruction stands in the code, with its suffixes."""
    return Counter(_INSTRUCTION.findall(sass))


def family(opcode: str) -> str:
    """An instruction without its suffixes."""
    return opcode.split(".")[0]


def load_bits(opcode: str) -> int | None:
    """Bits that one thread loads from global memory; None for other instructions and for the copy engine's."""
    if family(opcode) not in ("LDG", "LDGSTS"):
        return None
    suffixes = opcode.split(".")[1:]
    wide = next((int(suffix) for suffix in suffixes if suffix in ("64", "128", "256")), None)
    narrow = next((int(suffix[1:]) for suffix in suffixes if suffix in ("U8", "S8", "U16", "S16")), 32)
    return wide or narrow


def summary(sass: str) -> dict[str, int]:
    """Counts of what matters: matrix instructions, loads by width (LDG.128), multiply-adds, spills."""
    found: Counter[str] = Counter()
    for opcode, count in opcodes(sass).items():
        name = family(opcode)
        if bits := load_bits(opcode):
            found[f"{name}.{bits}"] += count
        elif name in (*MATRIX, "UTMALDG", "FFMA", "FFMA2", "STL", "LDL"):
            found[name] += count
    return dict(found)


def narrowest_load_bits(sass: str) -> int | None:
    """Bits of the narrowest load that is no read back of what other programs left; None where there is none.

    Those are marked STRONG: partial sums of other programs, lengths and page tables, a few bytes beside the weights.
    """
    streamed = (code for code in opcodes(sass) if ".STRONG" not in code)
    return min((bits for code in streamed if (bits := load_bits(code))), default=None)
