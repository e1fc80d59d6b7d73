"""All-reduce tables: NCCL as nccl-tests runs it, and the custom kernels of serving engines, in a graph and eager.

The tables give messages in elements; the record has bytes.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from reports.silicon import tables
from reports.silicon.formats import OF_MESSAGES
from reports.silicon.imported import Imported
from reports.silicon.points import Source, name, point
from specs.errors import UserError
from specs.measurement import Case, Measurement
from specs.units import ITEMSIZE

TABLES = (("nccl_perf", "nccl_dtype", "nccl"), ("custom_allreduce_perf", "allreduce_dtype", "custom"))
IN_GRAPH = ("trtllm",)
"""Kernels that their collector captures in a graph, and whose name does not say so."""


def read(system: Path) -> Imported:
    """Every all-reduce of the newest versions, over whatever ranks were measured."""
    imported = Imported()
    for table, dtype, implementation in TABLES:
        key = ("op_name", dtype, "num_gpus", "message_size")
        try:
            found = tables.read(system, "comm", table, key)
        except UserError as error:
            imported.not_run[name("all_reduce", implementation)] = str(error)
            continue
        imported.notes += found.notes
        rows = found.rows[(found.rows["op_name"] == "all_reduce") & found.rows[dtype].isin(OF_MESSAGES)]
        rows = rows.assign(launch=[_launch(kernel, implementation) for kernel in rows["kernel_source"]])
        newest = tables.newest(rows, [dtype, "num_gpus", "launch"])
        imported.measurements += _points(newest.rename(columns={dtype: "dtype"}), implementation)
    return imported


def _points(rows: pd.DataFrame, implementation: str) -> Iterator[Measurement]:
    same = ["framework", "dtype", "num_gpus", "message_size", "launch"]
    rows = rows.assign(several=rows.duplicated(same, keep=False))  # one framework timed two kernels
    for row in rows.sort_values([*same, "kernel_source"]).itertuples():
        dtype, ranks = OF_MESSAGES[row.dtype], int(row.num_gpus)
        message = int(row.message_size) * ITEMSIZE[dtype]
        who = implementation if implementation == "nccl" else row.framework
        kernel = row.kernel_source if row.several else None
        case = Case(
            name=name("all_reduce", f"{ranks}x{message}", dtype, who, row.launch, kernel),
            question="communication",
            op="all_reduce",
            implementation=implementation,
            kernel=row.kernel_source,
            dtype=dtype,
            flops=0,
            hbm_bytes=0,
            wire_bytes_sent_per_rank=2 * (ranks - 1) * message // ranks,
            tp=ranks,
            pp=1,
            cache="unknown",
            launch=row.launch,
            ranks=ranks,
            message_bytes=message,
        )
        yield point(case, row.seconds, Source(row.framework, row.version, row.kernel_source))


def _launch(kernel_source: str, implementation: str) -> str:
    for known in ("graph", "eager"):
        if kernel_source.endswith(f"_{known}"):
            return known
    if implementation == "nccl":
        return "eager"
    return "graph" if kernel_source.lower() in IN_GRAPH else "unknown"
