"""Capabilities of this machine, with reason and remedy of each missing one."""

import shutil
from collections.abc import Iterator
from typing import NamedTuple

import torch

from comm.backends import BACKENDS
from comm.collectives import COLLECTIVES
from kernels.kernel import TORCH_DTYPES
from kernels.registry import DECODE_ATTENTION, LINEARS, PREFILL_ATTENTION
from kernels.timing.device import COLD_FACTOR, Device, format_gib, why_gpu_unseen
from kernels.timing.nvidia_smi import are_gpus_hidden, find_driver
from specs.errors import UserError
from suites.case import RunConfig
from suites.environment import cpu_name, gpu_sharing_notes, machine_info, package_version
from suites.probes.kernel import why_not
from suites.probes.model import BACKEND_BY_KIND as STEP_BACKENDS
from suites.probes.model import default_deployments
from suites.workers.launcher import plan_ranks


class Capability(NamedTuple):
    """Finding: works or not, its subject, what was found, and how to get it."""

    works: bool
    subject: str
    found: str
    remedy: str = ""


def find_capabilities(device: Device) -> Iterator[Capability]:
    """All findings, the most fundamental first."""
    yield from _machine_capabilities(device)
    yield from _kernel_capabilities(device)
    yield from _rank_capabilities(device)
    yield from _tool_capabilities()


def _machine_capabilities(device: Device) -> Iterator[Capability]:
    facts = machine_info(device)
    if device.kind == "cuda":
        yield Capability(
            True, "GPU", f"{facts['gpu']}, {device.arch}, {facts['sms']} SMs, {format_gib(facts['gpu_memory_bytes'])}"
        )
        yield Capability(facts["driver"] is not None, "driver", str(facts["driver"]), "pip install nvidia-ml-py")
        for note in gpu_sharing_notes(device, facts["mig"]):
            yield Capability(False, "GPU to itself", *note.split("; ", 1))
    else:
        yield _missing_gpu()
        yield Capability(True, "CPU", f"{cpu_name()}, {facts['threads']} threads, torch uses {facts['torch_threads']}")
    yield Capability(True, "last-level cache", format_gib(device.llc_bytes))
    cold = device.cold_bytes >= 0.9 * COLD_FACTOR * device.llc_bytes
    yield Capability(
        cold,
        "cold weights",
        f"rotate through {format_gib(device.cold_bytes)} of {format_gib(device.free_bytes())} free",
        f"{COLD_FACTOR}x the last-level cache is wanted: free memory, or cases are labelled rotated-N",
    )
    yield Capability(True, "torch", f"{torch.__version__}, CUDA {facts['cuda'] or '-'}, NCCL {facts['nccl'] or '-'}")


def _missing_gpu() -> Capability:
    if reason := why_gpu_unseen():
        return Capability(False, "GPU", "torch cannot use it; the suites refuse to run without --device cpu", reason)
    if are_gpus_hidden() and find_driver():
        return Capability(False, "GPU", "hidden; the CPU is measured instead", "unset CUDA_VISIBLE_DEVICES")
    remedy = "an NVIDIA GPU with its driver (nvidia-smi is not there, or lists none)"
    return Capability(False, "GPU", "torch sees none; the CPU is measured instead", remedy)


def _kernel_capabilities(device: Device) -> Iterator[Capability]:
    launch = "graph" if device.kind == "cuda" else "eager"
    for kernel in (*LINEARS, *DECODE_ATTENTION, *PREFILL_ATTENTION):
        reasons = {
            d: why_not(kernel, RunConfig(d, "cold", launch, kernel.implementation), device) for d in TORCH_DTYPES
        }
        can = [dtype for dtype, reason in reasons.items() if reason is None]
        cannot = "; ".join(dict.fromkeys(reason for reason in reasons.values() if reason))
        yield Capability(bool(can), f"kernel {kernel.name}", ", ".join(can) or "cannot run here", cannot)
    graph = device.kind == "cuda"
    yield Capability(graph, "launch graph", "CUDA graphs" if graph else "cannot run here", "a CUDA GPU; eager works")


def _rank_capabilities(device: Device) -> Iterator[Capability]:
    """Findings on ranks, backends and deployments."""
    try:
        ranks = plan_ranks(None, device.kind)
    except UserError as error:
        yield Capability(False, "ranks", "the launcher's variables cannot be used", str(error))
        return
    found = f"{ranks.count}, started by {'the suites' if ranks.launched_rank is None else ranks.launched_rank.launcher}"
    alone = ranks.why_not()
    yield Capability(alone is None, "ranks", found, alone or "")
    for backend in BACKENDS.values():
        lacks = backend.why_not(ranks.world)
        if ranks.kind not in backend.device_kinds:
            lacks = f"it is for {' and '.join(sorted(backend.device_kinds))}, and the ranks are on {ranks.kind}"
        ops = [op for op, collective in COLLECTIVES.items() if collective.method in backend.methods]
        yield Capability(lacks is None, f"backend {backend}", ", ".join(ops), lacks or "")
    ways = ", ".join(str(one) for one in default_deployments(ranks.count, ranks.kind))
    lacks = alone or BACKENDS[STEP_BACKENDS[ranks.kind]].why_not(ranks.world)
    yield Capability(lacks is None, "TP against PP", f"a whole model on {ranks.count} ranks: {ways}", lacks or "")
    kept = sorted({(one.tp, one.busy_ranks) for one in default_deployments(ranks.count, ranks.kind)}, reverse=True)
    told = ", ".join(f"tp{tp} on {count} of {ranks.count}" for tp, count in kept)
    yield Capability(lacks is None, "shares", f"what a rank computes of it, with so many at once: {told}", lacks or "")


def _tool_capabilities() -> Iterator[Capability]:
    cuda = "cu12" if (torch.version.cuda or "13").startswith("12") else "cu13"
    for packages, use, remedy in (
        (("triton",), "Triton kernels, compiled for any arch in tests", "pip install triton (Linux)"),
        (("nvtx",), "ranges for Nsight Systems", "pip install nvtx"),
        (("nvidia-ml-py",), "clocks, power and throttling under load", _extra_remedy(cuda)),
        (("cupy-cuda13x", "cupy-cuda12x"), "CUDA C++ kernels, raw NCCL", _extra_remedy(cuda)),
        (("nvmath-python",), "cuBLASLt's heuristics", _extra_remedy("cublaslt")),
        (("mpi4py",), "MPI between CPUs, under mpirun or srun", "pip install mpi4py, beside an MPI"),
        (("cuda-bench",), "NVBench, to cross-check the clock", _extra_remedy(f"{cuda},clock")),
    ):
        found = next(filter(None, map(package_version, packages)), None)
        subject = packages[0].removesuffix("-cuda13x")
        yield Capability(found is not None, subject, f"{found or 'not installed'}: {use}", remedy)
    for tool, use in (("nsys", "timelines"), ("ncu", "DRAM bytes and kernel counters")):
        found = shutil.which(tool)
        where = "on the PATH" if found else "not on the PATH"
        yield Capability(found is not None, tool, f"{where}: {use}", "NVIDIA's Nsight Systems and Nsight Compute")


def _extra_remedy(name: str) -> str:
    return f"pip install -c constraints.txt .[{name}] (needs an NVIDIA GPU)"
