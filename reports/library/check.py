"""`check`: is a result file sound, of a schema that can be read, and without names that must not be passed on?"""

from collections.abc import Iterator, Sequence
from math import isclose
from pathlib import Path
from statistics import fmean
from typing import Any

from reports import files, jsontext
from reports.files import ResultFile
from reports.gate import GateError
from reports.library import filename, shelf
from specs.errors import UserError
from specs.measurement import SCHEMA
from specs.privacy import Names, here

MOST_TOLD = 60
"""Characters that are shown of a text with a name in it."""
CLOSE = 1e-9
"""Relative; sums of the same samples differ by less."""


def check(paths: Sequence[Path]) -> list[str]:
    """A line for each file.

    Args:
        paths: files, or folders with files; none for `reports/data`.

    Raises:
        UserError: a folder is not there, or has no result file.
        GateError: a file has a fault; it has the lines of all files.
    """
    names, lines, sound = here(), [], True
    for path in _files(paths or [shelf.DATA]):
        found = list(faults(path, names))
        lines += [f"no   {shelf.told(path)}: {fault}" for fault in found] or [f"ok   {shelf.told(path)}"]
        sound = sound and not found
    if not sound:
        raise GateError("\n".join(lines))
    return lines


def _files(paths: Sequence[Path]) -> list[Path]:
    return [path for one in paths for path in (shelf.paths(one) if one.is_dir() else [one])]


def faults(path: Path, names: Names) -> Iterator[str]:
    """What is wrong with a file, a line each: that it cannot be read at all, or else everything that can be seen."""
    try:
        content = jsontext.read(path)
        file = files.parse(path, content)
    except UserError as error:
        yield str(error).removeprefix(f"{path}: ")
        return
    yield from _schema(content)
    yield from _facts(file)
    yield from _counts(content)
    yield from _statistics(content, file)
    yield from _named(content, names)
    if path.resolve().parent == shelf.DATA:
        yield from filename.faults(file)


def _schema(content: dict[str, Any]) -> Iterator[str]:
    block = content.get("shardbench")
    if not isinstance(block, dict):
        yield "no shardbench block: what did not run, and the options, are not told; run the suites again"
    elif (own := block.get("schema")) != (of_machine := content["machine_info"]["shardbench_schema"]):
        yield f"schema is {own!r} in shardbench, {of_machine} in machine_info; this shardbench writes {SCHEMA} in both"


def _facts(file: ResultFile) -> Iterator[str]:
    """What a reader of the figures has to know."""
    known: dict[str, Any] = {"datetime": file.datetime}
    if not file.published and not file.profiler:
        own = {f"machine_info.{name}": file.machine.get(name) for name in ("device", "torch")}
        known |= {"version of pytest-benchmark": file.version, **own}
    for name, fact in known.items():
        if not fact:
            yield f"{name} is missing; run the suites again"
    if not file.measurements:
        yield "no case in it was measured"


def _counts(content: dict[str, Any]) -> Iterator[str]:
    """What stands in it twice says the same twice."""
    for entry in content["benchmarks"]:
        stats, info, name = entry["stats"], entry["extra_info"], entry.get("fullname")
        rounds, passes = info.get("pass_rounds") or [len(stats["data"])], info.get("passes")
        if passes is not None and passes != len(rounds):
            yield f"{name}: passes is {passes}, of {len(rounds)} in pass_rounds; the file was edited"
        if stats.get("rounds", len(stats["data"])) != len(stats["data"]):
            yield f"{name}: rounds is {stats['rounds']}, of {len(stats['data'])} samples; the file was edited"


def _statistics(content: dict[str, Any], file: ResultFile) -> Iterator[str]:
    """What follows from the samples does follow from them."""
    for entry, one in zip(content["benchmarks"], file.measurements, strict=True):
        stats, samples = entry["stats"], one.samples
        low, high = entry["extra_info"].get("interval_seconds") or (None, None)
        own_low, own_high = one.interval or (None, None)
        said_and_own = {
            "median": (stats.get("median"), one.median),
            "mean": (stats.get("mean"), fmean(samples)),
            "min": (stats.get("min"), min(samples)),
            "max": (stats.get("max"), max(samples)),
            "lower end of interval_seconds": (low, own_low),
            "upper end of interval_seconds": (high, own_high),
        }
        for name, (said, own) in said_and_own.items():
            if said is not None and not _same(said, own):
                yield f"{one.case.name}: {name} is {said!r}, of its samples {own!r}; the file was edited"


def _same(said: object, own: float | None) -> bool:
    return isinstance(said, int | float) and own is not None and isclose(said, own, rel_tol=CLOSE)


def _named(content: dict[str, Any], names: Names) -> Iterator[str]:
    if "node" in content["machine_info"]:
        yield "machine_info.node is the host's name; take it out"
    for place, text in names.found(content):
        told = names.text(text)
        short = told if len(told) <= MOST_TOLD else f"{told[:MOST_TOLD]}…"
        yield f"{place} names a user, a host or a home folder; it should say {short!r}"
