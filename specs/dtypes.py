"""Number formats by the short names used in case ids, options and tables."""

ITEMSIZE = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}
"""Bytes an element takes in memory (tf32 is fp32 in memory, rounded on the way into the matrix unit)."""
