"""The form of a result file, for what was not written by pytest-benchmark itself: recovered and imported runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_benchmark.stats import Stats

from specs.measurement import SCHEMA, Measurement

Record = dict[str, Any]


def statistics(samples: Sequence[float]) -> Record:
    """The statistics that pytest-benchmark writes beside the samples, in seconds."""
    stats = Stats()
    for sample in samples:
        stats.update(sample)
    return {**stats.as_dict(), "data": list(samples), "iterations": 1}


def reasons(by_case: Mapping[str, str]) -> list[dict[str, str]]:
    """Rows of `not_run` and `failed`."""
    return [{"case": case, "reason": reason} for case, reason in by_case.items()]


def entry(measurement: Measurement) -> Record:
    """A member of `benchmarks`."""
    name = measurement.case.name
    labels = {"group": None, "name": name.rpartition("::")[2], "fullname": name, "params": None, "param": None}
    info = {key: value for key, value in measurement.extra_info().items() if value is not None}
    return {**labels, "extra_info": info, "options": {}, "stats": statistics(measurement.samples)}


def block(schema: int = SCHEMA, **parts: Any) -> Record:
    """Shardbench's own block beside `benchmarks`."""
    return {"schema": schema, **parts}
