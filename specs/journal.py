"""The journal: a result file's contents, appended line by line as they are measured.

Each line is a JSON object with one key. `run` comes first and describes machine and options. `benchmark` is
an entry of the result file less its statistics, and carries all samples of that case so far: a later line
for the same case replaces the earlier one. `not_run` and `failed` hold a case and the reason. A case in which the
device was lost carries `device_lost` with the reason beside what else is known of it.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specs.errors import UserError
from specs.measurement import SCHEMA

Record = dict[str, Any]


@dataclass
class Journal:
    """What a journal holds: the run's header, and by case name the entry, the reason not run, the failure.

    `lost` has the reason of each case that took the device down.
    """

    run: Record
    benchmarks: dict[str, Record] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)


def append_record(path: Path, kind: str, record: Record) -> None:
    """Add one line and wait until it is on the disk; a last line that a crash cut short is taken off first.

    Raises:
        UserError: the disk is full or the file cannot be written; what was written before stays.
    """
    line = json.dumps({kind: record}, allow_nan=False) + "\n"
    try:
        with path.open("ab") as stream:
            stream.truncate(_complete_bytes(path))
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise UserError(
            f"{path}: cannot write the journal ({error.strerror}); free space or choose another --benchmark-json, "
            "then go on with --resume"
        ) from error


def _complete_bytes(path: Path) -> int:
    """Bytes up to the last newline."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        while size:
            stream.seek(size - 1)
            if stream.read(1) == b"\n":
                break
            size -= 1
    return size


def read_journal(path: Path) -> Journal:
    """Read a journal; a last line that a crash cut short is left out.

    Raises:
        UserError: not there, not a journal, damaged before its last line, or of a newer schema.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the journal ({error})") from error
    journal = Journal(run={})
    for number, line in enumerate(lines, start=1):
        try:
            ((kind, record),) = json.loads(line, parse_constant=_reject_constant).items()
            _apply_record(journal, kind, record)
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            if number == len(lines) and number > 1:
                break
            raise UserError(
                f"{path}: line {number} is not a journal line ({error}); is this a shardbench journal?"
            ) from error
    if not journal.run:
        raise UserError(f"{path}: no `run` line; is this a shardbench journal?")
    if (schema := journal.run["shardbench_schema"]) > SCHEMA:
        raise UserError(
            f"{path}: written with schema {schema}, this shardbench reads up to {SCHEMA}; update shardbench"
        )
    return journal


def _apply_record(journal: Journal, kind: str, record: Record) -> None:
    if kind == "run":
        if not isinstance(record["shardbench_schema"], int):
            raise TypeError("shardbench_schema is not a number")
        journal.run = record
    elif kind == "benchmark":
        journal.failed.pop(record["fullname"], None)  # it broke, and was measured when the run was resumed
        journal.benchmarks[record["fullname"]] = record
    elif kind == "not_run":
        journal.not_run[record["case"]] = record["reason"]
    elif kind == "failed":
        journal.benchmarks.pop(record["case"], None)
        journal.failed[record["case"]] = record["reason"]
    else:
        raise ValueError(f"unknown kind {kind!r}")
    if kind in ("benchmark", "failed"):
        _record_device_loss(journal, record["fullname" if kind == "benchmark" else "case"], record.get("device_lost"))


def _record_device_loss(journal: Journal, case: str, reason: object) -> None:
    """Keep why the device was lost in a case; a later line without that says that it was measured since."""
    journal.lost.pop(case, None)
    if reason is not None:
        journal.lost[case] = str(reason)


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


# What the suites' NVTX ranges and marks are called, for those who open them and those who read a trace of them.

NVTX_DOMAIN = "shardbench"
WARM_UP_RANGE, TIMED_RANGE = "warm-up", "timed"
"""Within the range of a case."""
CALL_RANGE = "call"
"""Within the warm-up: the first call that is checked, and in it by name the parts of what has any."""
UNTIMED_RANGE = "between"
"""Within `timed` and no sample: barriers and values filled in by ranks, load that brings a GPU's clock up."""
CALLS_MARK, SECONDS_MARK = "calls", "seconds a call"
"""Marks behind the samples: how many calls `timed` holds, and what the suite's own clock says."""
