"""Number formats by the short names used in case ids, options and tables."""

ITEMSIZE = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "fp8-block": 1, "int8": 1}
"""Bytes an element takes in memory (tf32 is fp32 in memory, rounded on the way into the matrix unit).

fp8 has one scale for a whole operand or row, fp8-block one for every 128 x 128 weights and 128 activations.
"""
MATRIX_UNIT = {"fp8-block": "fp8"}
"""Formats that run at the peak of another: scales by block change the data, not the unit."""
