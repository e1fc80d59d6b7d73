"""A GPU that a run does not have to itself is told, a line for each reason."""

import pytest

from kernels.timing.device import SAMPLING_LIMITS, Device
from suites import environment
from suites.environment import gpu_sharing_notes

GIB = 2**30


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with 80 GiB, of which `free` GiB are free, and processes on it."""

    def make(free, others=()):
        monkeypatch.setattr(Device, "free_bytes", lambda self: free * GIB)
        monkeypatch.setattr(Device, "total_bytes", lambda self: 80 * GIB)
        monkeypatch.setattr(environment, "other_gpu_processes", lambda: list(others))
        return Device("cuda", "sm_90", 50 * 2**20, SAMPLING_LIMITS["cuda"])

    return make


def test_a_gpu_of_its_own_needs_no_note(gpu):
    assert not list(gpu_sharing_notes(gpu(79), mig=False))
    assert not list(gpu_sharing_notes(gpu(79), mig=None))


def test_each_reason_is_one_line(gpu):
    notes = list(gpu_sharing_notes(gpu(1, [12, 13]), mig=True))
    slices, processes, memory = notes
    assert slices.startswith("MIG is on: a slice is measured")
    assert processes == "other processes compute on the GPU (pid 12, 13): expect noise; end them first"
    assert memory.startswith("1.00 GiB of 80.00 GiB are free: ")
    assert all("; " in note for note in notes)


def test_a_cpu_is_no_gpu(gpu):
    gpu(1, [12])
    assert not list(gpu_sharing_notes(Device("cpu", "cpu", 2**25, SAMPLING_LIMITS["cpu"]), mig=True))
