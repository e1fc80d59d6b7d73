"""What others published for the same operation on the same GPU, to hold a measurement against.

Only like is compared with like: GPU, operation, ranks and launch agree, NCCL stands beside NCCL and a custom kernel
beside custom kernels, back-to-back calls beside back-to-back calls.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reports import ceilings
from reports.files import ResultFile
from reports.silicon import interpolate, package
from specs.errors import UserError
from specs.gpus import Gpu
from specs.measurement import Measurement
from specs.units import binary_bytes

FAMILIES = {
    "nccl": "nccl",
    "cupy-nccl": "nccl",
    "rccl": "rccl",
    "custom": "custom",
    "symm-one-shot": "custom",
    "symm-two-shot": "custom",
    "symm-multimem": "custom",
    "triton-one-shot": "custom",
}
"""Implementations by the kind of software that they are."""
HALVES = {"bf16", "fp16"}
"""Formats that send and add as many bytes for each element: NCCL is published in fp16 alone, engines run bf16."""


class Key(NamedTuple):
    """What a measurement and a published figure have to agree in, besides dtype and message."""

    gpu: str
    op: str
    family: str
    launch: str
    ranks: int


@dataclass(frozen=True)
class Reference:
    """A published time in seconds, whose it is, and between which sizes it was interpolated, if it was."""

    seconds: float
    source: str
    between: str | None = None


@dataclass(frozen=True)
class Curve:
    """Published times of one kernel: seconds by bytes of the message."""

    dtype: str
    source: str
    seconds: Mapping[int, float]

    def at(self, message_bytes: int) -> Reference | None:
        """The time at this size, on a straight line between its neighbours where it is not tabulated."""
        if (exact := self.seconds.get(message_bytes)) is not None:
            return Reference(exact, self.source)
        found = interpolate.between(self.seconds, message_bytes)
        if not found:
            return None
        return Reference(found.seconds, self.source, f"{binary_bytes(found.low)}–{binary_bytes(found.high)}")


@dataclass(frozen=True)
class References:
    """Every published curve at hand."""

    curves: Mapping[Key, Sequence[Curve]]

    def beside(self, gpu: Gpu | None, one: Measurement) -> Reference | None:
        """The fastest that was published for the same case; a tabulated size goes before an interpolated one."""
        key = _key(gpu, one)
        case = one.case
        if not gpu or not key or one.provenance != "measured" or case.gap_seconds or case.message_bytes is None:
            return None
        if one.transport is not None and not over_fabric(gpu, one.transport):
            return None
        curves = self.curves.get(key, ())
        same = [curve for curve in curves if curve.dtype == case.dtype]
        alike = same or [curve for curve in curves if {curve.dtype, case.dtype} <= HALVES]
        found = [reference for curve in alike if (reference := curve.at(case.message_bytes))]
        return min(found, key=lambda one: (one.between is not None, one.seconds), default=None)


NOTHING = References({})


def over_fabric(gpu: Gpu, transport: str) -> bool:
    """Whether this kind of link is the fabric whose rate the GPU's row holds."""
    return gpu.link.lower().startswith(transport.lower())


def gather(files: Sequence[ResultFile]) -> References:
    """The published figures of these files, and of the installed tables for GPUs that no file has any of.

    A package that is not there is no error: there are fewer references then.
    """
    rows = [(known, one, file.path.name) for file in files if (known := ceilings.known_gpu(file)) for one in _of(file)]
    covered = {gpu.slug for gpu, _, _ in rows}
    for gpu in {gpu.slug: gpu for file in files for gpu in _asked(file)}.values():
        if gpu.slug not in covered:
            rows += [(gpu, one, package.NAME) for one in _tables(gpu)]
    return _curves(rows)


def _of(file: ResultFile) -> list[Measurement]:
    return [one for one in file.measurements if one.provenance == "published"]


def _asked(file: ResultFile) -> list[Gpu]:
    """The file's GPU, if the file holds anything that tables could have a figure for."""
    gpu = ceilings.known_gpu(file)
    asks = any(one.provenance == "measured" and _key(gpu, one) for one in file.measurements)
    return [gpu] if gpu and asks else []


def _tables(gpu: Gpu) -> list[Measurement]:
    try:
        folder, _ = package.installed().system(gpu.slug)
        from reports.silicon import collectives  # pandas: a second, and only where a GPU was measured

        return collectives.read(folder).measurements
    except (UserError, ImportError):
        return []


def _key(gpu: Gpu | None, one: Measurement) -> Key | None:
    case = one.case
    family = FAMILIES.get(case.implementation)
    if gpu is None or family is None or case.message_bytes is None or case.launch not in ("graph", "eager"):
        return None
    return Key(gpu.slug, case.op, family, case.launch, case.ranks)


def _curves(rows: Iterable[tuple[Gpu, Measurement, str]]) -> References:
    found: dict[Key, dict[tuple[str, str], dict[int, float]]] = {}
    for gpu, one, origin in rows:
        if key := _key(gpu, one):
            by_size = found.setdefault(key, {}).setdefault((one.case.dtype, _source(one, origin)), {})
            by_size[one.case.message_bytes or 0] = one.median
    return References({key: [Curve(*which, by) for which, by in group.items()] for key, group in found.items()})


def _source(one: Measurement, origin: str) -> str:
    who = " ".join(filter(None, (one.framework, one.version, one.kernel_source)))
    return f"{who} {one.case.dtype} ({origin})"
