"""The note's fabrics and libraries as axes: which of them the figures of each file were made with.

A file says it by the implementations of its cases, by its link, and by the variables that its run was given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports import ceilings
from reports.evidence import name_among
from reports.experiment.collect import belongs
from reports.files import ResultFile
from reports.page import Column, Table
from specs.measurement import Measurement

USED, UNUSED, UNKNOWN, ABSENT = "used", "not used", "unknown", "not present"
"""There are figures made with it; the machine has it or could, and none is; figures do not tell; it cannot be there."""
SWITCHED = ("NVLink 3", "NVLink 4", "NVLink 5")
"""Links of the GPUs that are sold in boards of eight behind a switch."""
BOARD_RANKS = 8
MULTICAST = ("symm-multimem",)
RACKS = ("gb200", "gb300")


@dataclass(frozen=True)
class Axis:
    """One fabric or library, and how a file tells."""

    name: str
    state: Callable[[ResultFile], str]


def draw_up(loaded: Sequence[ResultFile]) -> list[Table]:
    """A row for each file; nothing without files."""
    if not loaded:
        return []
    columns = (Column("file of", number=False), *(Column(axis.name, number=False) for axis in AXES))
    rows = tuple((name_among(file, loaded), *(axis.state(file) for axis in AXES)) for file in loaded)
    return [
        Table(
            title="libraries and fabric",
            caption="what the figures between ranks were made with",
            columns=columns,
            groups=(rows,),
            notes=(
                f"{USED}: there are figures made with it; {UNUSED}: it may be there, and no figure names it; "
                f"{UNKNOWN}: the figures do not say by which algorithm they came about; {ABSENT}: this machine, or "
                "shardbench, has none",
            ),
        )
    ]


def _implementations(file: ResultFile) -> set[str]:
    """Whose messages: of operations between ranks, and of whole models."""
    between = {one.case.implementation for one in file.measurements if one.case.message_bytes}
    return between | {one.case.backend or "" for one in file.measurements if belongs(one)}


def _algorithms(file: ResultFile) -> str:
    return " ".join(one.algorithm or "" for one in file.measurements).lower()


def _is_gpu(file: ResultFile) -> bool:
    return bool(file.machine.get("gpu"))


def _amd(file: ResultFile) -> bool:
    gpu = ceilings.known_gpu(file)
    return bool(file.machine.get("hip")) or bool(gpu and gpu.arch.startswith("gfx"))


def _between(file: ResultFile) -> list[Measurement]:
    """Messages between ranks, and whole models."""
    return [one for one in file.measurements if one.case.ranks > 1 and (one.case.message_bytes or belongs(one))]


def _nvswitch(file: ResultFile) -> str:
    """Boards of eight such GPUs, and racks of them, have no other way from GPU to GPU; boards of four are wired."""
    gpu = ceilings.known_gpu(file)
    if not gpu or gpu.link not in SWITCHED:
        return ABSENT
    hosts = file.machine.get("hosts")
    a_host = max((one.case.ranks for one in _between(file)), default=1) // (hosts if isinstance(hosts, int) else 1)
    return USED if _adds_up(file) or a_host >= (2 if gpu.slug in RACKS else BOARD_RANKS) else UNUSED


def _adds_up(file: ResultFile) -> bool:
    """Whether the switch did the adding up in any figure."""
    return bool(_implementations(file) & set(MULTICAST)) or "nvls" in _algorithms(file)


def _nvls(file: ResultFile) -> str:
    """Adding up in the switch, from Hopper on, is told by its kernel, or by the algorithm that the library took."""
    gpu = ceilings.known_gpu(file)
    if not gpu or gpu.link not in SWITCHED[1:]:
        return ABSENT
    if _adds_up(file):
        return USED
    return UNKNOWN if any(one.algorithm is None for one in _between(file)) else UNUSED


def _nic(file: ResultFile) -> str:
    """Messages between hosts go through one; within a host none does."""
    hosts = file.machine.get("hosts")
    return USED if isinstance(hosts, int) and hosts > 1 else UNUSED if _is_gpu(file) else ABSENT


def _rack(file: ResultFile) -> str:
    """Its ranks are told by their GPU; more of them than one host has are across the rack."""
    gpu = ceilings.known_gpu(file)
    if not gpu or gpu.slug not in RACKS:
        return ABSENT
    return USED if max((one.case.ranks for one in file.measurements), default=1) > HOST_RANKS else UNUSED


HOST_RANKS = 4
"""GPUs in one tray of such a rack."""


def _nccl(file: ResultFile) -> str:
    return (
        USED
        if _implementations(file) & {"nccl", "cupy-nccl"}
        else UNUSED
        if _is_gpu(file) and not _amd(file)
        else ABSENT
    )


def _rccl(file: ResultFile) -> str:
    return USED if "rccl" in _implementations(file) else UNUSED if _amd(file) else ABSENT


def _uccl(file: ResultFile) -> str:
    """A plug-in of NCCL and RCCL, which a run is told to load by a variable."""
    variables = file.machine.get("variables")
    told = str(variables if isinstance(variables, dict) else "").lower()
    return USED if "uccl" in told or "uccl" in _implementations(file) else UNUSED if _is_gpu(file) else ABSENT


AXES = (
    Axis("NVSwitch", _nvswitch),
    Axis("NVLS", _nvls),
    Axis("NIC, GPU-direct", _nic),
    Axis("NVL72", _rack),
    Axis("NCCL", _nccl),
    Axis("RCCL", _rccl),
    Axis("UCCL", _uccl),
)
