"""Every visit goes to the journal at once, and an interrupted run goes on from there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from specs import journal
from specs.errors import UserError
from specs.measurement import Measurement
from specs.privacy import here
from suites.entry import Entry

SAME = ("device", "gpu", "cpu", "torch", "torch_threads", "triton", "cuda", "nccl", "ranks", "launcher", "variables")
"""Facts of the machine that must not differ between the halves of a run."""


def journal_path(json: Path | None) -> Path:
    """Beside the JSON that was asked for, or build/journal.jsonl when none was."""
    return Path(f"{json}.journal.jsonl") if json else Path("build/journal.jsonl")


def write_entry(path: Path, entry: Entry) -> None:
    """Append what is known of an entry: its samples so far, or why there are none."""
    lost = {} if entry.device_lost is None else {"device_lost": entry.device_lost}
    if entry.failed is not None:
        append(path, "failed", {"case": entry.case.name, "reason": entry.failed, **lost})
    elif entry.not_run is not None:
        append(path, "not_run", {"case": entry.case.name, "reason": entry.not_run})
    else:
        measurement = entry.measurement()
        stats = {"data": list(measurement.samples)}
        append(path, "benchmark", {**entry.labels, "extra_info": measurement.extra_info(), "stats": stats, **lost})


def append(path: Path, kind: str, record: dict[str, Any]) -> None:
    """Add one line, without the names of user and host: a result file is made of it.

    Raises:
        UserError: the journal cannot be written.
    """
    journal.append(path, kind, here().scrub(record))


def start(path: Path, header: dict[str, Any]) -> Path | None:
    """Begin a new journal; an older one is kept beside it and its new path returned."""
    kept = None
    if path.exists():
        kept = path.with_suffix(".previous.jsonl")
        path.replace(kept)
    append(path, "run", header)
    return kept


class Resumed(NamedTuple):
    """Cases that have samples, cases that only the journal has, and by name why a case is not tried again."""

    taken: int
    others: int
    skipped: dict[str, str]


def resume(path: Path, header: dict[str, Any], entries: Sequence[Entry]) -> Resumed:
    """Take over what a journal holds of these entries. A case that took the device down is not tried again.

    Raises:
        UserError: the journal cannot be read, comes from another machine, or a case in it has another shape.
    """
    before = journal.read(path)
    old, new = here().scrub([before.run.get("machine_info", {}), header["machine_info"]])
    for fact in SAME:
        was, now = _identity(old.get(fact)), _identity(new.get(fact))
        if was != now:
            raise UserError(
                f"{path}: measured with {fact} {was}, this is {now}; one run has one machine: start again "
                "without --resume"
            )
    open_ = {entry.case.name: entry for entry in entries if entry.open}
    measured = {
        name: _measurement(path, open_[name], record) for name, record in before.benchmarks.items() if name in open_
    }
    for name, measurement in measured.items():
        open_[name].take(measurement)
    skipped = {name: reason for name, reason in before.lost.items() if name in open_}
    for name, reason in skipped.items():
        open_[name].skip(reason, measured.get(name))
    return Resumed(len(measured), len(set(before.benchmarks) - {entry.case.name for entry in entries}), skipped)


def _measurement(path: Path, entry: Entry, record: dict[str, Any]) -> Measurement:
    before = Measurement.from_benchmark(record)
    if before.case != entry.case:
        raise UserError(f"{path}: {entry.case.name} was measured at another shape; start again without --resume")
    return before


def _identity(fact: object) -> str:
    """A processor is known by its name: the rest of its facts holds the clock of the moment."""
    if isinstance(fact, dict):
        return str(fact["brand_raw"] if "brand_raw" in fact else dict(sorted(fact.items())))
    return str(fact)
