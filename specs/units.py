"""Number formats of a model's parts, their sizes, and sizes in powers of two as text."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from specs.errors import UserError, find

# Number formats by the short names used in case ids, options and tables.

ITEMSIZE = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "fp8-block": 1, "int8": 1}
"""Bytes of an element in memory.

tf32 is fp32 in memory, rounded on the way into the matrix unit. fp8 has one scale for a whole operand or row, fp8-block
one for every 128 x 128 weights and 128 activations.
"""
STORED_ITEMSIZE: dict[str, float] = {**ITEMSIZE, "nvfp4": 0.5 + 1 / 16}
"""Bytes of an element in memory with its share of the scales, where a scale serves few elements.

nvfp4 has half a byte for an element and a scale of one byte for 16 elements.
"""
PEAK_DTYPE = {"fp8-block": "fp8", "nvfp4": "fp4"}
"""Formats that run at another format's peak.

Scales by block change the data, not the unit.
"""

# Formats of a model's parts: weights, activations, KV cache and queries differ in a quantized model.


class AttentionFormat(NamedTuple):
    """Formats of the queries, and of the keys and values in the cache."""

    queries: str
    kv_cache: str


@dataclass(frozen=True)
class NumberFormat:
    """Formats of a model's parts under one `--dtype`.

    Attributes:
        name: name in options.
        weights, activations: operands of a layer's linears.
        kv_cache: keys and values, where attention over them was measured.
        queries: queries, and the result of attention.
        residual: embedding, LM head, norms, residual stream, and messages between ranks.
    """

    name: str
    weights: str
    activations: str
    kv_cache: str
    queries: str
    residual: str

    @property
    def attention(self) -> tuple[AttentionFormat, ...]:
        """Formats of attention, preferred first.

        Next to the preferred format are a cache in the queries' format, and queries in the cache's format.
        """
        pairs = ((self.queries, self.kv_cache), (self.queries, self.queries), (self.kv_cache, self.kv_cache))
        return tuple(dict.fromkeys(AttentionFormat(*pair) for pair in pairs))

    @property
    def is_uniform(self) -> bool:
        """True where all parts have one format."""
        return {self.weights, self.activations, self.kv_cache, self.queries, self.residual} == {self.name}


QUANTIZED_FORMATS = (
    NumberFormat("fp8", "fp8", "fp8", "fp8", "bf16", "bf16"),
    NumberFormat("fp8-block", "fp8-block", "fp8-block", "fp8", "bf16", "bf16"),
    NumberFormat("nvfp4", "nvfp4", "nvfp4", "fp8", "bf16", "bf16"),
)
"""Formats of quantized models.

Serving engines keep the LM head in bf16. The residual stream and all-reduces are bf16 too.
"""
NUMBER_FORMATS = {name: NumberFormat(name, name, name, name, name, name) for name in ITEMSIZE} | {
    one.name: one for one in QUANTIZED_FORMATS
}
"""Formats of a model's parts, by the name that `--dtype` takes."""


def find_number_format(dtype: str) -> NumberFormat:
    """Return the formats of a model's parts under `dtype`.

    Raises:
        UserError: no such format.
    """
    return find(NUMBER_FORMATS, dtype, "number format")


# Sizes in powers of two.

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
