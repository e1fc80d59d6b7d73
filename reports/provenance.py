"""How strong a figure's ground is, and the name of the GPU that it is of."""

from collections.abc import Iterable

from reports import machine
from reports.results import ResultFile

PROVENANCE_ORDER = ("measured", "published", "interpolated", "datasheet", "modelled", "assumed")
"""Provenances, the strongest first."""


def weakest_provenance(provenances: Iterable[str]) -> str:
    """The provenance of a figure that rests on all of these."""
    return max(
        provenances, key=lambda one: PROVENANCE_ORDER.index(one) if one in PROVENANCE_ORDER else len(PROVENANCE_ORDER)
    )


def gpu_name(file: ResultFile) -> str:
    """The slug of a file's GPU, or what the file says of its machine."""
    known = machine.known_gpu(file)
    return known.slug if known else machine.device_name(file.machine)


def distinct_gpu_name(file: ResultFile, files: Iterable[ResultFile]) -> str:
    """That of a file's machine, with the file where several are of one."""
    alike = [one for one in files if machine.device_name(one.machine) == machine.device_name(file.machine)]
    return f"{gpu_name(file)} ({file.path.stem})" if len(alike) > 1 else gpu_name(file)
