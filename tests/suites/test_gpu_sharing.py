"""A GPU that a run does not have to itself is told, a line for each reason."""

import pytest

from kernels.timing.device import PATIENCE, Device
from suites import environment
from suites.environment import sharing

GIB = 2**30


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with 80 GiB, of which `free` GiB are free, and processes on it."""

    def make(free, others=()):
        monkeypatch.setattr(Device, "free_bytes", lambda self: free * GIB)
        monkeypatch.setattr(Device, "total_bytes", lambda self: 80 * GIB)
        monkeypatch.setattr(environment, "other_processes", lambda: list(others))
        return Device("cuda", "sm_90", 50 * 2**20, PATIENCE["cuda"])

    return make


def test_a_gpu_of_its_own_needs_no_note(gpu):
    assert not list(sharing(gpu(79), mig=False))
    assert not list(sharing(gpu(79), mig=None))


def test_each_reason_is_one_line(gpu):
    notes = list(sharing(gpu(1, [12, 13]), mig=True))
    slices, processes, memory = notes
    assert slices.startswith("MIG is on: a slice is measured")
    assert processes == "other processes compute on the GPU (pid 12, 13): expect noise; end them first"
    assert memory.startswith("1.00 GiB of 80.00 GiB are free: ")
    assert all("; " in note for note in notes)


def test_a_cpu_is_no_gpu(gpu):
    gpu(1, [12])
    assert not list(sharing(Device("cpu", "cpu", 2**25, PATIENCE["cpu"]), mig=True))
