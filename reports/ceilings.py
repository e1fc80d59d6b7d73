"""The ceilings that a file's cases are held against: what the same run measured, and what the datasheet promises."""

from reports import clocks
from reports.files import ResultFile
from reports.line import Fitted, through
from specs.gpus import Gpu, recognise
from specs.measurement import Measurement
from specs.roofline import Ceilings
from specs.statistics import Passes

EMPTY = "triton_empty"
LEAST_SIZES = 4
"""Of reads that a line goes through."""


def measured(file: ResultFile) -> Ceilings:
    """The best of the file's own ceilings: reads for memory, square products for arithmetic, the launch latency."""
    found = _own(file)
    reading = read(file)
    launches = [one.median for one in found if _is_launch(one)]
    return Ceilings(
        read_bytes_per_second=reading.bytes_per_second if reading else None,
        flops_per_second={dtype: one.flops_per_second for dtype, one in products(file).items()},
        launch_seconds=min(launches, default=None),
    )


def read(file: ResultFile) -> Measurement | None:
    """The fastest of the file's own reads; a hot one comes from a cache and is no ceiling of memory."""
    reads = [one for one in _own(file) if one.case.op == "read" and one.case.cache != "hot"]
    return max(reads, key=lambda one: one.bytes_per_second, default=None)


def launch(file: ResultFile, how: str) -> Measurement | None:
    """The shortest launch latency that the file measured, in a graph or eager."""
    launches = [one for one in _own(file) if _is_launch(one) and one.case.launch == how]
    return min(launches, key=lambda one: one.median, default=None)


def empty(file: ResultFile) -> Measurement | None:
    """The empty kernel of a file that measured it: less than the launch of a kernel that has anything to do."""
    return next((one for one in _own(file) if one.case.kernel == EMPTY), None)


def copies(file: ResultFile) -> dict[str, Measurement]:
    """By how it was launched the fastest copy: in a graph another engine of the GPU may do it."""
    found: dict[str, Measurement] = {}
    for one in sorted(_own(file), key=lambda one: one.bytes_per_second):
        if one.case.op == "copy" and one.case.cache != "hot":
            found[one.case.launch] = one
    return found


def products(file: ResultFile) -> dict[str, Measurement]:
    """By number format the fastest square product."""
    found: dict[str, Measurement] = {}
    for one in _own(file):
        best = found.setdefault(one.case.dtype, one) if one.case.op == "linear" else None
        if best and one.flops_per_second > best.flops_per_second:
            found[one.case.dtype] = one
    return found


def read_line(file: ResultFile) -> tuple[Fitted, list[int]] | None:
    """A line through one kernel's reads in a graph over at least `LEAST_SIZES` sizes, and those; None without them."""
    by_kernel: dict[str, dict[int, Passes]] = {}
    for one in _own(file):
        if one.case.op == "read" and one.case.launch == "graph" and one.case.cache != "hot":
            by_kernel.setdefault(one.case.kernel, {})[one.case.hbm_bytes] = one.seconds
    sizes = max(by_kernel.values(), key=len, default={})
    return (through(sizes), sorted(sizes)) if len(sizes) >= LEAST_SIZES else None


def in_doubt(file: ResultFile) -> dict[str, list[str]]:
    """By ceiling that was throttled, or in which the clock moved, that in words: floors derive from it."""
    found: dict[str, Measurement | None] = {"read": read(file)}
    found |= {f"copy {how}": one for how, one in copies(file).items()}
    found |= {f"{dtype} matmul": one for dtype, one in products(file).items()}
    found |= {f"launch {how}": launch(file, how) for how in ("graph", "eager")} | {"empty kernel": empty(file)}
    said = {name: clocks.doubts(one) for name, one in found.items() if one}
    return {name: words for name, words in said.items() if words}


def known_gpu(file: ResultFile) -> Gpu | None:
    """The datasheet row of the GPU that the file names."""
    name, memory = file.machine.get("gpu"), file.machine.get("gpu_memory_bytes")
    return recognise(name, memory if isinstance(memory, int) else None) if isinstance(name, str) else None


def _own(file: ResultFile) -> list[Measurement]:
    return [one for one in file.measurements if one.case.question == "ceilings"]


def _is_launch(one: Measurement) -> bool:
    """A launch that has something to do: the ceiling of files that have an empty kernel and of those that do not."""
    return one.case.op == "launch" and one.case.kernel != EMPTY
