"""The journal of a run, one JSON line per measured case, and its NVTX names.

A journal holds a result file's contents, appended as cases are measured. Each line is a JSON object with one key. `run`
comes first and describes machine and options. `benchmark` is an entry of the result file without its statistics. The
entry holds all samples of that case so far: a later line for the same case replaces the earlier line. `not_run` and
`failed` hold a case and the reason. A case that lost the device also carries `device_lost` with the reason.
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
    """Contents of a journal: the run's header, and three tables by case name.

    `benchmarks` holds entries, `not_run` and `failed` hold reasons. `lost` holds the reason of each case that took the
    device down.
    """

    run: Record
    benchmarks: dict[str, Record] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)


def append_record(path: Path, kind: str, record: Record) -> None:
    """Append one line and wait until the disk has it.

    A last line that a crash cut short is removed first.

    Raises:
        UserError: the disk is full or the file cannot be written; earlier lines stay.
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
    """Return the number of bytes up to the last newline."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        while size:
            stream.seek(size - 1)
            if stream.read(1) == b"\n":
                break
            size -= 1
    return size


def read_journal(path: Path) -> Journal:
    """Read a journal; skip a last line that a crash cut short.

    Raises:
        UserError: the file is missing, no journal, damaged before its last line, or of a newer schema.
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
        journal.failed.pop(record["fullname"], None)  # the case failed, and a resumed run has measured it since
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
    """Keep the reason for a lost device; a later line without a reason clears it."""
    journal.lost.pop(case, None)
    if reason is not None:
        journal.lost[case] = str(reason)


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


# Names of NVTX ranges and marks, for the code that opens them and the code that reads a trace.

NVTX_DOMAIN = "shardbench"
WARM_UP_RANGE, TIMED_RANGE = "warm-up", "timed"
"""Ranges within the range of a case."""
CALL_RANGE = "call"
"""Range of the first, checked call in the warm-up.

Named ranges within it cover the parts of a call that has parts.
"""
UNTIMED_RANGE = "between"
"""Range within `timed` that holds no sample.

It covers barriers, values that ranks fill in, and load that raises a GPU's clock.
"""
CALLS_MARK, SECONDS_MARK = "calls", "seconds a call"
"""Marks after the samples: calls in `timed`, and the suite's own time per call."""
