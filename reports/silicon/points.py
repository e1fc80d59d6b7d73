"""A published point as the record that every report reads."""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from specs.measurement import Case, Measurement

SUITE = "aiconfigurator"
ASKED = (125, 1000)
"""Tokens that a claim speaks of and no table holds."""


@dataclass(frozen=True)
class Source:
    """Who measured a series: the framework, its version, and the kernel it says it ran."""

    framework: str
    version: str
    kernel_source: str

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Source":
        """What the rows of one series say; several kernels are named one after the other."""
        return cls(*(" | ".join(sorted(set(rows[column]))) for column in ("framework", "version", "kernel_source")))


def name(op: str, *labels: object) -> str:
    """A case name in the form of a pytest node id; no GPU and no version in it, so that systems can be compared."""
    return f"{SUITE}::{op}[{'-'.join(str(label) for label in labels if label is not None)}]"


def point(case: Case, seconds: float, source: Source, **facts: Any) -> Measurement:
    """One published time: a single figure that stands for samples which the source does not give."""
    return Measurement(
        case=replace(case, kernel=case.kernel or source.kernel_source),
        seconds=((seconds,),),
        clock="published",
        stopped_by="published",
        framework=source.framework,
        version=source.version,
        kernel_source=source.kernel_source,
        **{"provenance": "published", **facts},
    )
