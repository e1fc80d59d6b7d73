"""Notes on a GPU that a run does not have to itself: a slice, other processes, or little free memory."""

from collections.abc import Iterator

from kernels.timing.device import Device, gib
from kernels.timing.nvidia_smi import other_processes

LITTLE = 0.25
"""Share of the memory below which large shapes and cold copies do not fit on most GPUs."""


def sharing(device: Device, mig: bool | None) -> Iterator[str]:
    """One line each: the finding; the remedy."""
    if device.kind != "cuda":
        return
    if mig:
        yield "MIG is on: a slice is measured, and datasheet peaks are of the whole GPU; turn MIG off to measure it all"
    if others := other_processes():
        yield f"other processes compute on the GPU (pid {', '.join(map(str, others))}): expect noise; end them first"
    free, total = device.free_bytes(), device.total_bytes()
    if free < LITTLE * total:
        yield f"{gib(free)} of {gib(total)} are free: cases that need more are left out; free the GPU's memory"
