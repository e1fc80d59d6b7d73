"""Provenance of figures, and the name of their GPU."""

from collections.abc import Iterable

from reports import machine
from reports.results import ResultFile

PROVENANCE_ORDER = ("measured", "published", "interpolated", "datasheet", "modelled", "assumed")
"""Provenances, the strongest first."""


def weakest_provenance(provenances: Iterable[str]) -> str:
    """Weakest provenance, which a figure that depends on all of them has."""
    return max(
        provenances, key=lambda one: PROVENANCE_ORDER.index(one) if one in PROVENANCE_ORDER else len(PROVENANCE_ORDER)
    )


def gpu_name(file: ResultFile) -> str:
    """Slug of a file's GPU, else the device name in the file."""
    known = machine.known_gpu(file)
    return known.slug if known else machine.device_name(file.machine)


def distinct_gpu_name(file: ResultFile, files: Iterable[ResultFile]) -> str:
    """GPU name of a file, with the file's name where several files share a machine."""
    alike = [one for one in files if machine.device_name(one.machine) == machine.device_name(file.machine)]
    return f"{gpu_name(file)} ({file.path.stem})" if len(alike) > 1 else gpu_name(file)
