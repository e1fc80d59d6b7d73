"""What an import prints: a row a case with device time beside our own clock, then a layer's parts."""

from collections.abc import Sequence
from typing import Any

from reports import units
from reports.page import Block, Column, Facts, Table
from reports.profiles.run import Run
from reports.profiles.times import Times
from reports.units import NONE

LONGEST = 60
"""Letters of a kernel's name: templates have hundreds."""
CLOSE = 0.05
"""Share by which clock and device time may differ without a word."""
OVERLAP = 1.02
"""How many times the device time kernels add up to, from where on streams are said to overlap."""
EARLY = "kernels start before the one before them ends, on one stream (programmatic dependent launch)"


def clock(times: Times, run: Run) -> float | None:
    """Seconds a call by our own clock: as the trace says, else as the run's file does."""
    return times.clock or run.clock(times.case)


def page(
    title: str, found: Sequence[Times], run: Run, facts: Sequence[tuple[str, str]], notes: Sequence[str]
) -> list[Block]:
    """All of it; `facts` stand above the tables."""
    blocks: list[Block] = [Facts(title=title, rows=tuple(facts))]
    if found:
        blocks.append(_cases(found, run))
    blocks += [_parts(one) for one in found if one.parts]
    return [*blocks, Facts(title="notes", rows=tuple(("", note) for note in notes), level=3)] if notes else blocks


def data(found: Sequence[Times], run: Run, notes: Sequence[str]) -> dict[str, Any]:
    """The same for a machine."""
    return {"cases": [_record(one, run) for one in found], "notes": list(notes)}


def _cases(found: Sequence[Times], run: Run) -> Table:
    time = units.scale(units.SECONDS, [one.busy for one in found])
    columns = (
        Column("case", number=False),
        Column("launch", number=False),
        Column("visits"),
        Column("calls"),
        Column("kernels\na call"),
        Column("streams"),
        Column(f"device busy\n{time.symbol}"),
        Column(f"span\n{time.symbol}"),
        Column(f"own clock\n{time.symbol}"),
        Column("clock /\ndevice"),
        Column("DRAM read"),
        Column("what lies between", number=False, prose=True),
    )
    rows = tuple(
        (
            one.case.rpartition("::")[2],
            one.launch,
            str(len(one.samples)),
            f"{one.calls:,}",
            NONE if one.kernels_per_call is None else f"{one.kernels_per_call:.4g}",
            str(one.streams),
            time(one.busy),
            time(one.span) if one.spanned else NONE,
            time(clock(one, run)),
            units.ratio(ratio) if (ratio := _ratio(one, run)) else NONE,
            _dram(one, run),
            _gap(one, run),
        )
        for one in found
    )
    caption = "a call, the median over visits"
    return Table(title="device time", columns=columns, groups=(rows,), caption=caption).without_empty(NONE)


def _ratio(times: Times, run: Run) -> float | None:
    own = clock(times, run)
    return own / times.busy if own else None


def _dram(times: Times, run: Run) -> str:
    if times.read_bytes is None:
        return NONE
    needed = run.cases[times.case].case.hbm_bytes if times.case in run.cases else 0
    share = f" ({units.percent(times.read_bytes / needed)})" if needed else ""
    return units.decimal_bytes(times.read_bytes) + share


def _gap(times: Times, run: Run) -> str:
    """Why clock and device time differ, as far as the trace tells."""
    said, ratio = [], _ratio(times, run)
    if not times.spanned:
        return "" if not ratio or abs(ratio - 1) <= CLOSE else "caches and clocks were not as in the run, or gaps"
    if times.added > OVERLAP * times.busy:
        what = "streams overlap" if times.streams > 1 else EARLY
        said.append(f"{what}: kernels add up to {times.added / times.busy:.2f} times the busy time")
    if ratio and ratio > 1 + CLOSE and not times.complete:
        said.append(f"device idle or at kernels not counted here, {units.percent(1 - 1 / ratio)}: see the notes")
    elif ratio and ratio > 1 + CLOSE:
        what = "the host's launch gaps" if times.launch == "eager" else "gaps between a graph's kernels"
        said.append(f"device idle {units.percent(1 - 1 / ratio)}: {what}")
    elif ratio and ratio < 1 - CLOSE:
        said.append("the profiler stretches kernels: trust the clock")
    return "; ".join(said)


def _parts(times: Times) -> Table:
    time = units.scale(units.SECONDS, [one.busy for one in times.parts])
    columns = (
        Column("part", number=False),
        Column("calls\na layer"),
        Column("kernels\na layer"),
        Column(f"device busy\n{time.symbol}"),
        Column("share"),
        Column("DRAM read"),
        Column("longest kernel", number=False, prose=True),
    )
    rows = tuple(
        (
            one.name,
            str(one.per_layer),
            str(one.kernels),
            time(one.busy),
            units.percent(one.share),
            NONE if one.read_bytes is None else units.decimal_bytes(one.read_bytes),
            one.kernel if len(one.kernel) <= LONGEST else f"{one.kernel[: LONGEST - 1]}…",
        )
        for one in times.parts
    )
    return Table(
        title="parts", columns=columns, groups=(rows,), caption=f"of a layer · {times.case.rpartition('::')[2]}"
    ).without_empty(NONE)


def _record(times: Times, run: Run) -> dict[str, Any]:
    parts = [
        {
            "part": one.name,
            "busy_seconds": one.busy,
            "share": one.share,
            "per_layer": one.per_layer,
            "kernels": one.kernels,
            "kernel": one.kernel,
            "dram_bytes_read": one.read_bytes,
        }
        for one in times.parts
    ]
    return {
        "case": times.case,
        "visits": len(times.samples),
        "calls": times.calls,
        "kernels_per_call": times.kernels_per_call,
        "streams": times.streams,
        "busy_seconds": times.busy,
        "span_seconds": times.span if times.spanned else None,
        "sum_seconds": times.added,
        "clock_seconds": clock(times, run),
        "ratio": _ratio(times, run),
        "launch": times.launch,
        "dram_bytes_read": times.read_bytes,
        "explained_by": _gap(times, run),
        "parts": parts,
    }
