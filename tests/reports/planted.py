"""Result files with planted numbers, written through `Measurement.extra_info` as the suites write them."""

import json
import random
from dataclasses import replace
from math import exp
from pathlib import Path

from specs.measurement import SCHEMA, Case, Measurement

CPU = {
    "shardbench_schema": SCHEMA,
    "node": "somewhere",
    "cpu": {"brand_raw": "Planted CPU 9000"},
    "device": "cpu",
    "gpu": None,
    "cores": 8,
    "torch_threads": 8,
    "llc_bytes": 32 * 2**20,
    "torch": "2.13.0+cpu",
}
H200 = CPU | {
    "device": "cuda",
    "gpu": "NVIDIA H200",
    "sms": 132,
    "l2_bytes": 60 * 2**20,
    "gpu_memory_bytes": 150_000_000_000,
    "torch": "2.13.0+cu130",
    "cuda": "13.0",
}
MADE = {
    "commit_info": {"id": "0123456789abcdef0123", "dirty": True},
    "datetime": "2026-01-31T12:34:56.789+00:00",
    "version": "5.3.1",
}


def case(name="suites/bench_linears.py::bench_decode[planted]", **changes):
    """A bf16 linear of 1e9 bytes and 2e9 flops."""
    usual = Case(
        name=name,
        question="decode",
        op="linear",
        implementation="torch",
        kernel="torch_linear",
        dtype="bf16",
        flops=2_000_000_000,
        hbm_bytes=1_000_000_000,
        model="llama-3-70b",
        layer="o",
        tp=8,
        pp=1,
        tokens=1,
        n=8192,
        k=1024,
    )
    return replace(usual, **changes)


def ceilings(read=10e9, peak=100e9, dtype="bf16"):
    """A read that reaches `read` bytes a second and a square product that reaches `peak` flops a second."""
    bare = {
        "question": "ceilings",
        "model": None,
        "layer": None,
        "tp": None,
        "pp": None,
        "n": None,
        "k": None,
        "tokens": None,
    }
    reading = case(
        "suites/bench_ceilings.py::bench_read[torch]", op="read", kernel="torch_read", flops=0, dtype="fp32", **bare
    )
    square = {"n": 1024, "k": 1024, "tokens": 1024, "flops": int(peak), "hbm_bytes": 6 * 2**20, "dtype": dtype}
    product = case(f"suites/bench_ceilings.py::bench_matmul[{dtype}]", **(bare | square))
    return [measured(reading, 1e9 / read), measured(product, 1.0)]


def measured(one, seconds, passes=6, **facts):
    """Every sample the same; `seconds` may be one number, or a sequence with a tuple for each pass."""
    planted = tuple(seconds) if isinstance(seconds, list | tuple) else ((seconds,) * 4,) * passes
    return Measurement(case=one, seconds=planted, clock="perf_counter", relative_error=1e-3, **facts)


def noisy(one, seconds, rng: random.Random, passes=6, between=0.02, within=0.005):
    """Samples as machines give them: each pass is off by its own factor, and within a pass they hardly differ."""
    shifts = [exp(rng.gauss(0, between)) for _ in range(passes)]
    return measured(one, tuple(tuple(seconds * s * exp(rng.gauss(0, within)) for _ in range(5)) for s in shifts))


def entry(measurement, **changes):
    """A member of `benchmarks`."""
    name = measurement.case.name
    stats = {"data": list(measurement.samples), "median": measurement.median}
    labels = {"fullname": name, "name": name.rpartition("::")[2], "group": None, "param": None, "params": None}
    return {**labels, "extra_info": measurement.extra_info(), "stats": stats, **changes}


def content(measurements, machine=CPU, not_run=(), failed=(), **changes):
    """A whole result file."""
    block = {
        "schema": SCHEMA,
        "not_run": [{"case": name, "reason": reason} for name, reason in not_run],
        "failed": [{"case": name, "reason": reason} for name, reason in failed],
        "options": {"passes": 6},
    }
    made = {"machine_info": machine, "benchmarks": [entry(one) for one in measurements], "shardbench": block}
    return {**made, **MADE, **changes}


def write(path: Path, *args, **kwargs) -> Path:
    """A result file on the disk."""
    path.write_text(json.dumps(content(*args, **kwargs)))
    return path
