"""A small, impatient device and small kernels, so that whole runs of the plugin take a fraction of a second."""

import json
import warnings
from pathlib import Path

import pytest
import scipy.special  # noqa: F401 - numpy under it loads once a process, and pytester forgets what a run imports
import torch._dynamo

from kernels.timing import device

ROOT = Path(__file__).parents[2]

KERNELS = '''
"""Small kernels for planted faults."""
from dataclasses import replace
import pytest, torch
from kernels.linear import TORCH_LINEAR
from specs.parallel import Shard
from suites.case import RunConfig

COLD = RunConfig("fp32", "cold", "eager", "torch")
SHAPE = dict(tokens=3, n=64, k=32)

def planted(fault):
    """The torch linear with a fault in it."""
    def run(x, weight, out):
        fault()
    return replace(TORCH_LINEAR, run=run)
'''

GOOD = """
def bench_good(measure):
    measure(TORCH_LINEAR, "decode", COLD, Shard("m", 2, 1, "qkv", 64, 32), **SHAPE)

def bench_also_good(measure):
    measure(TORCH_LINEAR, "prefill", COLD, **SHAPE)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A device whose cold pool is 32 x 64 KiB and whose visits take a millisecond."""
    monkeypatch.setattr(device, "_cpu_llc_bytes", lambda: 2**16)
    monkeypatch.setitem(device.SAMPLING_LIMITS, "cpu", device.SamplingLimits(1e-5, 1e-3, 0.05, 20.0))
    clear = device.current_device.cache_clear
    clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a busy machine wait for each other longer than such small work takes
    yield
    torch.set_num_threads(threads)
    clear()


class Bench:
    """Runs bench functions in a folder of their own, in this process."""

    def __init__(self, pytester):
        self.pytester = pytester
        self.json = pytester.path / "out.json"
        self.journal = pytester.path / "out.json.journal.jsonl"
        pytester.makeini("[pytest]\npython_files = bench_*.py\npython_functions = bench_*\n")

    def write(self, *sources):
        self.pytester.path.joinpath("bench_it.py").write_text("\n".join((KERNELS, *sources)))

    def run(self, *options):
        fixed = ("-p", "suites.plugin", "-p", "no:cacheprovider", f"--benchmark-json={self.json}", "bench_it.py")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # in a user's run a warning must not cost a measurement, either
            return self.pytester.runpytest_inprocess(*fixed, *options, no_reraise_ctrlc=True)

    def result(self):
        return json.loads(self.json.read_text())

    def cases(self):
        return {entry["name"]: entry for entry in self.result()["benchmarks"]}


@pytest.fixture
def bench(pytester):
    return Bench(pytester)
