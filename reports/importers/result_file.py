"""Parts of a result file, and `recover`, which writes a journal as one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pytest_benchmark.stats import Stats

from reports import output, results
from specs import journal
from specs.errors import UserError
from specs.journal import Journal
from specs.journal import Record as JournalRecord
from specs.measurement import SCHEMA, Measurement
from specs.privacy import current_identity

# Form of a result file that pytest-benchmark did not write: recovered and imported runs.

Record = dict[str, Any]


def benchmark_stats(samples: Sequence[float]) -> Record:
    """Statistics that pytest-benchmark writes beside the samples, in seconds."""
    stats = Stats()
    for sample in samples:
        stats.update(sample)
    return {**stats.as_dict(), "data": list(samples), "iterations": 1}


def reason_rows(by_case: Mapping[str, str]) -> list[dict[str, str]]:
    """Rows of `not_run` and `failed`."""
    return [{"case": case, "reason": reason} for case, reason in by_case.items()]


def benchmark_entry(measurement: Measurement) -> Record:
    """Member of `benchmarks`."""
    name = measurement.case.name
    labels = {"group": None, "name": name.rpartition("::")[2], "fullname": name, "params": None, "param": None}
    info = {key: value for key, value in measurement.extra_info().items() if value is not None}
    return {**labels, "extra_info": info, "options": {}, "stats": benchmark_stats(measurement.samples)}


def shardbench_block(schema: int = SCHEMA, **parts: Any) -> Record:
    """Shardbench's own block beside `benchmarks`."""
    return {"schema": schema, **parts}


LABEL_KEYS = ("group", "name", "fullname", "params", "param", "extra_info")
"""Keys of a case that pytest-benchmark writes besides options and statistics."""


def recover(path: Path, to: Path) -> str:
    """Write a journal as a result file; return a line for the user.

    Raises:
        UserError: the journal cannot be read or is empty, or the file cannot be written or holds more cases.
    """
    found = journal.read_journal(path)
    content = journal_to_result(found)
    if not (content["benchmarks"] or found.not_run or found.failed):
        raise UserError(f"{path}: no case in it; the run ended before the first was measured, run it again")
    result = results.parse(path, content)
    _refuse_loss(path, to, {one.case.name for one in result.measurements})
    output.write_file(to, json.dumps(content, indent=4, allow_nan=False) + "\n")
    counts = f"{len(result.measurements)} measured, {len(result.not_run)} not run, {len(found.failed)} failed"
    return f"{to}: recovered {counts} from {path}"


def journal_to_result(found: Journal) -> JournalRecord:
    """Convert a journal to pytest-benchmark's JSON with shardbench's block.

    Names of the user and the host are removed.
    """
    run = found.run
    block = shardbench_block(
        schema=run["shardbench_schema"],
        not_run=reason_rows(found.not_run | _not_reached(found)),
        failed=reason_rows(found.failed),
        options=_mapping(run.get("options")),
        **({"command": str(run["command"])} if run.get("command") else {}),
    )
    machine = {key: fact for key, fact in _mapping(run.get("machine_info")).items() if key != "node"}
    content = {
        "machine_info": {**machine, "shardbench_schema": run["shardbench_schema"]},
        "commit_info": _mapping(run.get("commit_info")),
        "benchmarks": [_benchmark(entry) for name, entry in found.benchmarks.items() if name not in found.failed],
        "datetime": run.get("datetime"),
        "version": run.get("version"),
        "shardbench": block,
    }
    return cast("Record", current_identity().scrub(content))


def _not_reached(found: Journal) -> dict[str, str]:
    """Cases that the run had planned and did not reach."""
    known = found.benchmarks.keys() | found.not_run.keys() | found.failed.keys()
    planned = found.run.get("planned") or []
    return {str(case): "the run ended before this case was reached" for case in planned if case not in known}


def _benchmark(entry: JournalRecord) -> JournalRecord:
    """Entry with the statistics that pytest-benchmark would have written.

    Raises:
        UserError: its samples are missing or no numbers.
    """
    name = entry.get("fullname", "?")
    try:
        data = [float(sample) for sample in entry["stats"]["data"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{name}: no samples in the journal ({error}); remove its line and try again") from error
    if not data:
        raise UserError(f"{name}: no samples in the journal; remove its line and try again")
    labels: dict[str, Any] = {key: entry.get(key) for key in LABEL_KEYS}
    return {**labels, "options": _mapping(entry.get("options")), "stats": benchmark_stats(data)}


def _mapping(value: Any) -> JournalRecord:
    return value if isinstance(value, dict) else {}


def _refuse_loss(path: Path, to: Path, names: set[str]) -> None:
    """Refuse to overwrite a whole result file with cases that the journal lacks."""
    if to.exists() and path.exists() and to.samefile(path):
        raise UserError(f"{to}: is the journal itself; give -o another name")
    try:
        there = {one.case.name for one in results.load(to).measurements}
    except UserError:
        return  # missing or incomplete: nothing to lose
    if lost := there - names:
        raise UserError(f"{to}: whole already, with {len(lost)} cases that {path} lacks; give another -o")
