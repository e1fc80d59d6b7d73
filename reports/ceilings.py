"""The ceilings that a file's cases are held against: what the same run measured, and what the datasheet promises."""

from reports.files import ResultFile
from specs.gpus import Gpu, recognise
from specs.measurement import Measurement
from specs.roofline import Ceilings


def measured(file: ResultFile) -> Ceilings:
    """The best of the file's own ceilings: reads for memory, square products for arithmetic, the launch latency."""
    found = _own(file)
    reading = read(file)
    launches = [one.median for one in found if one.case.op == "launch"]
    return Ceilings(
        read_bytes_per_second=reading.bytes_per_second if reading else None,
        flops_per_second=_peaks(found),
        launch_seconds=min(launches, default=None),
    )


def read(file: ResultFile) -> Measurement | None:
    """The fastest of the file's own reads; a hot one comes from a cache and is no ceiling of memory."""
    reads = [one for one in _own(file) if one.case.op == "read" and one.case.cache != "hot"]
    return max(reads, key=lambda one: one.bytes_per_second, default=None)


def launch(file: ResultFile, how: str) -> Measurement | None:
    """The shortest launch latency that the file measured, in a graph or eager."""
    launches = [one for one in _own(file) if one.case.op == "launch" and one.case.launch == how]
    return min(launches, key=lambda one: one.median, default=None)


def known_gpu(file: ResultFile) -> Gpu | None:
    """The datasheet row of the GPU that the file names."""
    name, memory = file.machine.get("gpu"), file.machine.get("gpu_memory_bytes")
    return recognise(name, memory if isinstance(memory, int) else None) if isinstance(name, str) else None


def _own(file: ResultFile) -> list[Measurement]:
    return [one for one in file.measurements if one.case.question == "ceilings"]


def _peaks(found: list[Measurement]) -> dict[str, float]:
    peaks: dict[str, float] = {}
    for one in found:
        if one.case.op == "linear":
            peaks[one.case.dtype] = max(peaks.get(one.case.dtype, 0.0), one.flops_per_second)
    return peaks
