"""Seconds of each step on a GPU: compiles x 0.45 s, and visits x what a visit takes there, beside what is granted."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from tests.simulated_gpu.fake_triton import COMPILE_SECONDS

CORES = 16
"""Of the machine that is first lent; the warm step compiles on as many."""
WORKERS = 8
"""Of the correctness step there."""
START_SECONDS = 8.0
"""Python, torch, the CUDA context and pytest's collection: assumed."""
HOST_SECONDS = 4e-3
"""Of a visit beside what the device and its queue take, inputs and the journal: assumed."""
PASSES = 3
LEGS = 2
"""Visits of a case in a pass, once on the way out and once back."""
TOOL_FACTOR = 4.0
"""How many times longer a program takes under a profiler: assumed."""
ASSUMED = {"start_seconds": START_SECONDS, "host_seconds_per_visit": HOST_SECONDS, "profiler_factor": TOOL_FACTOR}
"""What an estimate rests on and nobody has measured; seconds of a compile were."""


def steps(
    results: Mapping[str, Mapping[str, Any]], notes: Sequence[Mapping[str, Any]], grants: Mapping[str, float]
) -> list[dict[str, Any]]:
    """A row for each step that has a grant."""
    by_step: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for note in notes:
        by_step[note["step"]].append(note)
    return [
        {
            "step": name,
            "estimated_seconds": round(_estimate(name, by_step[name]), 1),
            "granted_seconds": round(grants[name], 1),
            "compiles": _compiles(name, by_step[name]),
            "visits": _visits(by_step[name]),
            "status": results.get(name, {}).get("outcome", "missing"),
        }
        for name in grants
    ]


def _compiles(name: str, notes: Sequence[Mapping[str, Any]]) -> int:
    if name == "warm":
        return len({note["code"] for note in notes if note["kind"] == "compiled"})
    return len({note["code"] for note in notes if note["kind"] == "launch" and not note["warm"]})


def _visits(notes: Sequence[Mapping[str, Any]]) -> int:
    """Of all cases, those that were only bound and keyed too."""
    return PASSES * LEGS * len({note["case"] for note in notes if note["kind"] == "truth"})


def _estimate(name: str, notes: Sequence[Mapping[str, Any]]) -> float:
    compiling = COMPILE_SECONDS * _compiles(name, notes)
    if name == "warm":
        return START_SECONDS + compiling / CORES
    if any(note["kind"] == "visit" for note in notes):
        return START_SECONDS + compiling + _visiting(notes)
    host = sum(note["host"] for note in notes if note["kind"] == "end")
    if name == "correctness":
        return START_SECONDS + (host + compiling) / WORKERS
    return START_SECONDS + compiling + host * (TOOL_FACTOR if name == "dram" else 1.0)


def _visiting(notes: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of all visits: of a kind of case those that were measured stand for the others."""
    visits: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for note in notes:
        if note["kind"] == "visit":
            visits[_kind(note["case"])][note["case"]].append(note["seconds"] + HOST_SECONDS)
    cases = Counter(_kind(case) for case in {note["case"] for note in notes if note["kind"] == "truth"})
    total = 0.0
    for kind, measured in visits.items():
        first = fmean(taken[0] for taken in measured.values())
        later = fmean([seconds for taken in measured.values() for seconds in taken[1:]] or [first])
        total += cases[kind] * (first + (PASSES * LEGS - 1) * later)
    return total


def _kind(case: str) -> str:
    """A bench function by one implementation."""
    return f"{case.split('::')[-1].split('[')[0]} {case.rstrip(']').split('-graph-')[-1].split('-eager-')[-1]}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text."""
    head = f"{'step':<14}{'compiles':>9}{'visits':>8}{'estimated':>11}{'granted':>9}  status"
    lines = [
        f"{row['step']:<14}{row['compiles']:>9}{row['visits']:>8}{row['estimated_seconds']:>9.0f} s"
        f"{row['granted_seconds']:>7.0f} s  {row['status']}"
        for row in rows
    ]
    return os.linesep.join([head, *lines])
