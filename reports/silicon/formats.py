"""Number formats: the tables' names for them, and ours."""

from collections.abc import Sequence

FORMATS = {"bf16": "bfloat16", "fp16": "float16", "fp8": "fp8", "fp8-block": "fp8_block"}
"""The tables' name of each format that can be taken over."""
OF_MESSAGES = {theirs: ours for ours, theirs in FORMATS.items()} | {"half": "fp16", "int8": "int8"}
"""Ours of each that messages are in."""


def known(dtypes: Sequence[str]) -> dict[str, str]:
    """Of the asked formats, ours by the tables' names."""
    return {FORMATS[dtype]: dtype for dtype in dtypes if dtype in FORMATS}
