"""A trace of Nsight Systems as visits to cases, read from what `nsys export --type sqlite` wrote."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.profiles import launches, nvtx
from reports.profiles.activity import Activity
from reports.profiles.database import EXPORT, Database
from reports.profiles.launches import Launched
from reports.profiles.nvtx import Mark, Range, Thread
from reports.profiles.visit import SHOWN, Profile, Visit
from reports.units import counted
from specs.errors import UserError
from specs.journal import BETWEEN, CALL, CALLS, SECONDS, TIMED, WARM_UP

OURS = ("StringIds", "META_DATA_EXPORT", "TARGET_INFO_SYSTEM_ENV")
"""Tables of which an export always has one, whatever was traced."""
SLOWED = "nsys was attached: tracing slows the host's launches and, where graphs are traced by node, their kernels"
GPU_FACTS = ("id", "name", "totalMemory", "smCount", "l2CacheSize", "computeMajor", "computeMinor", "cuDevice")


def read(path: Path) -> Profile:
    """Everything that a trace says of our cases.

    Raises:
        UserError: it cannot be used.
    """
    with Database(path) as database:
        if not any(database.has(table) for table in OURS):
            raise UserError(f"{path}: SQLite, but not of Nsight Systems; give what this wrote: {EXPORT}")
        try:
            if not database.has("StringIds"):
                raise UserError(f"no table StringIds, in which all names stand; export it again: {EXPORT}")
            strings = dict(database.rows("StringIds", ("id", "value")))
            threads, marks = nvtx.read(database, strings)
            outermost = [one for thread in threads.values() for one in thread.ranges if one.above is None]
            since, until = min(one.start for one in outermost), max(one.end for one in outermost)
            launched, elsewhere, notes = launches.read(database, strings, since, until)
        except UserError as error:
            raise error if str(error).startswith(f"{path}:") else UserError(f"{path}: {error}") from error
        odd = [mark for mark in marks if not mark.usable]
        visits, outside = _visits(threads, marks, launched)
        outside += elsewhere
        if not visits:
            raise UserError(
                f"{path}: no range of a case in it, only what lies within or around one; trace whole cases, chosen "
                "with pytest's -k, and leave --capture-range out"
            )
        if outside == len(launched) + elsewhere:
            raise UserError(f"{path}: {_no_kernels(visits, outside)}; trace a run on a GPU with --trace=cuda,nvtx")
        devices = {one.activity.stream[0] for one in launched}
        notes = [SLOWED, *notes]
        notes += [f"{counted(len(odd), 'mark')} that cannot be, as of {odd[0].value:g}: left out"] if odd else []
        cut = [one for thread in threads.values() for one in thread.ranges if one.name == TIMED and not one.whole]
        notes += [f"the trace ended inside of {counted(len(cut), 'visit')}: left out"] if cut else []
        notes += [f"{outside} kernels and copies were launched outside of our ranges: left out"] if outside else []
        return Profile(visits, f"Nsight Systems{_version(database)}", _gpu(database, devices), notes)


def _no_kernels(visits: Sequence[Visit], outside: int) -> str:
    cases = len({one.case for one in visits})
    where = f"{outside} kernels and copies, none in them" if outside else "no CUDA kernels"
    return f"ranges of {counted(cases, 'case')}, but {where}"


def _visits(
    threads: Mapping[int, Thread], marks: Iterable[Mark], launched: Iterable[Launched]
) -> tuple[list[Visit], int]:
    """The visits by start, and how many activities belong to none."""
    found: dict[Range, Visit] = {}
    for thread in threads.values():
        for one in thread.ranges:
            if one.above and not one.above.above and one.name in (WARM_UP, TIMED):
                case = one.above
                process = nvtx.process(case.thread)
                found.setdefault(case, Visit(case.name, case.category, process, case.start, case.end))
    for mark in (one for one in marks if one.usable):
        at = threads[mark.thread].innermost(mark.at) if mark.thread in threads else None
        if at and (visit := found.get(at.path[0])):
            if mark.name == CALLS:
                visit.calls = int(mark.value)
            elif mark.name == SECONDS:
                visit.clock_seconds = mark.value
    outside = 0
    calls: dict[Range, Range] = {}
    parts: dict[Range, list[Activity]] = {}
    for activity, owner in launched:
        at = threads[owner].innermost(int(activity.launched[0])) if owner is not None and owner in threads else None
        visit = found.get(at.path[0]) if at else None
        if at is None or visit is None:
            outside += 1
        else:
            _file(visit, at, activity, calls, parts)
    return [found[case] for case in sorted(found, key=lambda case: case.start)], outside


def _file(
    visit: Visit, at: Range, one: Activity, calls: dict[Range, Range], parts: dict[Range, list[Activity]]
) -> None:
    """Put an activity where it belongs in its visit; older runs show parts beside the call, newer ones in it.

    Some checked twice: `calls` holds the first call of each case's range, whose kernels alone are those of one call.
    """
    path = at.path
    names = [step.name for step in path]
    if TIMED in names[1:2]:
        if path[1].whole and BETWEEN not in names[2:3]:  # of one that is not whole some of its calls are missing
            visit.timed.append(one)
        return
    if CALL in names[2:3]:
        if calls.setdefault(path[0], path[2]) is not path[2]:
            return
        visit.call.append(one)
    if shown := next((step for step in path[2:] if step.name in SHOWN), None):
        if shown not in parts:
            parts[shown] = []
            visit.parts.append((shown.name, parts[shown]))
        parts[shown].append(one)


def _version(database: Database) -> str:
    told = dict(database.rows("META_DATA_EXPORT", ("name", "value")))
    version = str(told.get("EXPORT_PRODUCT_VERSION") or "")
    return f" {version}" if version and all(letter in "0123456789." for letter in version) else ""


def _gpu(database: Database, devices: set[int]) -> dict[str, object]:
    """Of the devices that ran something, never the host's name, which stands in the same file."""
    rows = [dict(zip(GPU_FACTS, one, strict=True)) for one in database.rows("TARGET_INFO_GPU", (), GPU_FACTS)]
    used = [one for one in rows if (one["id"] if one["cuDevice"] is None else one["cuDevice"]) in devices] or rows
    if not used:
        return {"gpu": None}
    return _facts(used[0])


def _facts(row: Mapping[str, Any]) -> dict[str, object]:
    arch = f"sm_{row['computeMajor']}{row['computeMinor']}" if row["computeMajor"] else None
    facts = {
        "gpu": row["name"],
        "arch": arch,
        "sms": row["smCount"],
        "l2_bytes": row["l2CacheSize"],
        "gpu_memory_bytes": row["totalMemory"],
    }
    return {name: value for name, value in facts.items() if value}
