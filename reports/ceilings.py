"""The ceilings that a file's cases are held against: what the same run measured, and what the datasheet promises."""

from reports.files import ResultFile
from specs.gpus import Gpu, recognise
from specs.measurement import Measurement
from specs.roofline import Ceilings


def measured(file: ResultFile) -> Ceilings:
    """The best of the file's own ceilings: reads for memory, square products for arithmetic, the launch latency.

    A hot read comes from a cache and is no ceiling of memory.
    """
    found = [one for one in file.measurements if one.case.question == "ceilings"]
    reads = [one.bytes_per_second for one in found if one.case.op == "read" and one.case.cache != "hot"]
    launches = [one.median for one in found if one.case.op == "launch"]
    return Ceilings(
        read_bytes_per_second=max(reads, default=None),
        flops_per_second=_peaks(found),
        launch_seconds=min(launches, default=None),
    )


def known_gpu(file: ResultFile) -> Gpu | None:
    """The datasheet row of the GPU that the file names."""
    name, memory = file.machine.get("gpu"), file.machine.get("gpu_memory_bytes")
    return recognise(name, memory if isinstance(memory, int) else None) if isinstance(name, str) else None


def _peaks(found: list[Measurement]) -> dict[str, float]:
    peaks: dict[str, float] = {}
    for one in found:
        if one.case.op == "linear":
            peaks[one.case.dtype] = max(peaks.get(one.case.dtype, 0.0), one.flops_per_second)
    return peaks
