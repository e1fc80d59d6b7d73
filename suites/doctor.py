"""What this machine can measure, what it cannot and why, and how to get what is missing."""

import shutil
from collections.abc import Iterator
from typing import NamedTuple

import torch

from comm.backends.all import BACKENDS
from comm.collectives import COLLECTIVES
from kernels.kernel import DTYPES
from kernels.registry import DECODE, LINEARS, PREFILL
from kernels.timing.device import COLD_FACTOR, Device, gib, unseen_gpu
from kernels.timing.nvidia_smi import find_driver, hidden_on_purpose
from specs.errors import UserError
from suites.case import How
from suites.environment import cpu_name, machine_info, package_version, sharing
from suites.probes.kernel import why_not
from suites.probes.model import BACKENDS as STEP_BACKENDS
from suites.probes.model import default_deployments
from suites.workers.launcher import plan_ranks


class Line(NamedTuple):
    """One finding: does it work, what it is, what was found or is missing, how to get it."""

    works: bool
    subject: str
    found: str
    remedy: str = ""


def findings(device: Device) -> Iterator[Line]:
    """All findings, the most fundamental first."""
    yield from _machine(device)
    yield from _kernels(device)
    yield from _ranks(device)
    yield from _tools()


def _machine(device: Device) -> Iterator[Line]:
    facts = machine_info(device)
    if device.kind == "cuda":
        yield Line(True, "GPU", f"{facts['gpu']}, {device.arch}, {facts['sms']} SMs, {gib(facts['gpu_memory_bytes'])}")
        yield Line(facts["driver"] is not None, "driver", str(facts["driver"]), "pip install nvidia-ml-py")
        for note in sharing(device, facts["mig"]):
            yield Line(False, "GPU to itself", *note.split("; ", 1))
    else:
        yield _no_gpu()
        yield Line(True, "CPU", f"{cpu_name()}, {facts['threads']} threads, torch uses {facts['torch_threads']}")
    yield Line(True, "last-level cache", gib(device.llc_bytes))
    cold = device.cold_bytes >= 0.9 * COLD_FACTOR * device.llc_bytes
    yield Line(
        cold,
        "cold weights",
        f"rotate through {gib(device.cold_bytes)} of {gib(device.free_bytes())} free",
        f"{COLD_FACTOR}x the last-level cache is wanted: free memory, or cases are labelled rotated-N",
    )
    yield Line(True, "torch", f"{torch.__version__}, CUDA {facts['cuda'] or '-'}, NCCL {facts['nccl'] or '-'}")


def _no_gpu() -> Line:
    if reason := unseen_gpu():
        return Line(False, "GPU", "torch cannot use it; the suites refuse to run without --device cpu", reason)
    if hidden_on_purpose() and find_driver():
        return Line(False, "GPU", "hidden; the CPU is measured instead", "unset CUDA_VISIBLE_DEVICES")
    remedy = "an NVIDIA GPU with its driver (nvidia-smi is not there, or lists none)"
    return Line(False, "GPU", "torch sees none; the CPU is measured instead", remedy)


def _kernels(device: Device) -> Iterator[Line]:
    launch = "graph" if device.kind == "cuda" else "eager"
    for kernel in (*LINEARS, *DECODE, *PREFILL):
        reasons = {d: why_not(kernel, How(d, "cold", launch, kernel.implementation), device) for d in DTYPES}
        can = [dtype for dtype, reason in reasons.items() if reason is None]
        cannot = "; ".join(dict.fromkeys(reason for reason in reasons.values() if reason))
        yield Line(bool(can), f"kernel {kernel.name}", ", ".join(can) or "cannot run here", cannot)
    graph = device.kind == "cuda"
    yield Line(graph, "launch graph", "CUDA graphs" if graph else "cannot run here", "a CUDA GPU; eager works")


def _ranks(device: Device) -> Iterator[Line]:
    """Who can talk to whom, and through what."""
    try:
        ranks = plan_ranks(None, device.kind)
    except UserError as error:
        yield Line(False, "ranks", "the launcher's variables cannot be used", str(error))
        return
    found = f"{ranks.count}, started by {'the suites' if ranks.place is None else ranks.place.launcher}"
    alone = ranks.why_not()
    yield Line(alone is None, "ranks", found, alone or "")
    for backend in BACKENDS.values():
        lacks = backend.why_not(ranks.world)
        if ranks.kind not in backend.kinds:
            lacks = f"it is for {' and '.join(sorted(backend.kinds))}, and the ranks are on {ranks.kind}"
        ops = [op for op, collective in COLLECTIVES.items() if collective.method in backend.methods]
        yield Line(lacks is None, f"backend {backend}", ", ".join(ops), lacks or "")
    ways = ", ".join(str(one) for one in default_deployments(ranks.count, ranks.kind))
    lacks = alone or BACKENDS[STEP_BACKENDS[ranks.kind]].why_not(ranks.world)
    yield Line(lacks is None, "TP against PP", f"a whole model on {ranks.count} ranks: {ways}", lacks or "")
    kept = sorted({(one.tp, one.busy_ranks) for one in default_deployments(ranks.count, ranks.kind)}, reverse=True)
    told = ", ".join(f"tp{tp} on {count} of {ranks.count}" for tp, count in kept)
    yield Line(lacks is None, "shares", f"what a rank computes of it, with so many at once: {told}", lacks or "")


def _tools() -> Iterator[Line]:
    cuda = "cu12" if (torch.version.cuda or "13").startswith("12") else "cu13"
    for packages, use, remedy in (
        (("triton",), "Triton kernels, compiled for any arch in tests", "pip install triton (Linux)"),
        (("nvtx",), "ranges for Nsight Systems", "pip install nvtx"),
        (("nvidia-ml-py",), "clocks, power and throttling under load", _extra(cuda)),
        (("cupy-cuda13x", "cupy-cuda12x"), "CUDA C++ kernels, raw NCCL", _extra(cuda)),
        (("nvmath-python",), "cuBLASLt's heuristics", _extra("cublaslt")),
        (("mpi4py",), "MPI between CPUs, under mpirun or srun", "pip install mpi4py, beside an MPI"),
        (("cuda-bench",), "NVBench, to cross-check the clock", _extra(f"{cuda},clock")),
    ):
        found = next(filter(None, map(package_version, packages)), None)
        subject = packages[0].removesuffix("-cuda13x")
        yield Line(found is not None, subject, f"{found or 'not installed'}: {use}", remedy)
    for tool, use in (("nsys", "timelines"), ("ncu", "DRAM bytes and kernel counters")):
        found = shutil.which(tool)
        where = "on the PATH" if found else "not on the PATH"
        yield Line(found is not None, tool, f"{where}: {use}", "NVIDIA's Nsight Systems and Nsight Compute")


def _extra(name: str) -> str:
    return f"pip install -c constraints.txt .[{name}] (needs an NVIDIA GPU)"
