"""Sizes of number formats, and sizes in powers of two as text."""

import re

from specs.errors import UserError

# Number formats by the short names used in case ids, options and tables.

ITEMSIZE = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "fp8-block": 1, "int8": 1}
"""Bytes of an element in memory.

tf32 is fp32 in memory, rounded on the way into the matrix unit. fp8 has one scale for a whole operand or row, fp8-block
one for every 128 x 128 weights and 128 activations.
"""
PEAK_DTYPE = {"fp8-block": "fp8"}
"""Formats that run at another format's peak.

Scales by block change the data, not the unit.
"""


BINARY_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def format_bytes(count: float) -> str:
    """Return a capacity or a message size in KiB, MiB or GiB, as text."""
    factor, symbol = next((step for step in BINARY_UNITS if count >= step[0]), (1, "B"))
    return f"{count / factor:,.4g} {symbol}"


def parse_bytes(text: str) -> int:
    """Return the bytes of 16KiB, 1MiB or 4096.

    Raises:
        UserError: the text is no size, or has a decimal unit, which would be another size than meant.
    """
    found = re.fullmatch(r"(\d+)\s*(B|KiB|MiB|GiB)?", text)
    if not found or not int(found[1]):
        raise UserError(f"{text!r} is no size; write bytes as 4096, 16KiB or 1MiB")
    return int(found[1]) * {symbol: factor for factor, symbol in BINARY_UNITS}.get(found[2], 1)
