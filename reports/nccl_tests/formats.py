"""Names that nccl-tests gives to programs and number formats, and ours for them."""

PROGRAMS = {
    "all_reduce_perf": "all_reduce",
    "all_gather_perf": "all_gather",
    "reduce_scatter_perf": "reduce_scatter",
    "broadcast_perf": "broadcast",
    "sendrecv_perf": "ring_shift",  # each rank sends to the next and receives from the one before, at once
}
"""The operation of specs/traffic.py that each program times."""
COUNTED_BY_RANK = ("all_gather", "reduce_scatter")
"""Operations whose `count` is of one rank's part, and whose `size` is of all parts."""
DTYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}
"""Our name of a format; those that we have none for keep theirs."""
ITEMSIZE = {
    "int8": 1,
    "char": 1,
    "uint8": 1,
    "f8e4m3": 1,
    "f8e5m2": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "half": 2,
    "bfloat16": 2,
    "int": 4,
    "int32": 4,
    "uint32": 4,
    "float": 4,
    "int64": 8,
    "uint64": 8,
    "double": 8,
}
"""Bytes an element."""
