"""The lines above a file's tables, and those below on what did not run."""

from collections import Counter

from reports import command, machine, units
from reports.files import ResultFile
from reports.page import Facts
from specs.gpus import Gpu
from specs.roofline import Ceilings

NO_CEILINGS = "none in this file: run suites/bench_ceilings.py with the others for shares"


def above(file: ResultFile, measured: Ceilings, gpu: Gpu | None) -> Facts:
    """Machine, date, commit, how much was measured, and the ceilings that the shares refer to."""
    span = passes(file)
    counts = [f"{len(file.measurements)} cases in {span} pass{'es' * (span != '1')}"]
    counts += [f"{len(file.not_run)} not run"] if file.not_run else []
    counts += [f"{len(file.failed)} failed"] if file.failed else []
    rows = [
        ("machine", machine.describe(file.machine)),
        ("software", machine.software(file.machine)),
        ("source", str(file.machine.get("source") or "")),
        ("profiler", file.profiler and f"{file.profiler}: device time as it saw it, attached to the run"),
        ("frameworks", _frameworks(file)),
        ("imported" if file.published else "date", _minute(file.datetime)),
        ("commit", _commit(file)),
        ("command", command.told(file)),
        ("points" if file.published else "measured", ", ".join(counts)),
        ("ceilings", peaks(measured) or ("" if file.published else NO_CEILINGS)),
    ]
    if gpu:
        used = {one.case.dtype for one in file.measurements}
        sheet = {dtype: peak for dtype, peak in gpu.flops_per_second.items() if dtype in used}
        rows.append(("datasheet", f"{gpu.slug}: {peaks(Ceilings(gpu.hbm_bytes_per_second, sheet))}"))
    elif name := file.machine.get("gpu"):
        rows.append(("datasheet", f"unknown: no row of specs/gpus.py is a {name} of this memory"))
    return Facts(title=str(file.path), rows=tuple((name, text) for name, text in rows if text), level=2)


def _frameworks(file: ResultFile) -> str:
    """What published times were measured in, with versions."""
    found = {f"{one.framework} {one.version}" for one in file.measurements if one.framework and one.case.op == "linear"}
    return ", ".join(sorted(found))


def below(file: ResultFile) -> list[Facts]:
    """What is missing: reasons with their counts, and each failure on a line."""
    reasons = Counter(file.not_run.values())
    not_run = tuple((str(count), reason) for reason, count in reasons.most_common())
    failed = tuple(("", f"{case}: {reason}") for case, reason in file.failed.items())
    notes = tuple(("", note) for note in file.notes)
    facts = [
        Facts(title="not run", rows=not_run, level=3),
        Facts(title="failed", rows=failed, level=3),
        Facts(title="notes", rows=notes, level=3),
    ]
    return [one for one in facts if one.rows]


def passes(file: ResultFile) -> str:
    """`6`, `6 to 14`: how many passes its cases had."""
    counts = [len(one.seconds) for one in file.measurements]
    return "0" if not counts else f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def peaks(ceilings: Ceilings) -> str:
    """Read bandwidth, and the matmul rate of each number format."""
    memory = ceilings.read_bytes_per_second
    rates = [f"{dtype} {units.one(units.FLOPS_PER_SECOND, peak)}" for dtype, peak in ceilings.flops_per_second.items()]
    return ", ".join(([f"read {units.one(units.BYTES_PER_SECOND, memory)}"] if memory else []) + rates)


def _minute(datetime: str) -> str:
    """2026-01-31T12:34:56.789+00:00 to the minute, as UTC where it says so."""
    utc = " UTC" if datetime.endswith(("+00:00", "Z")) else ""
    return datetime[:16].replace("T", " ") + utc


def _commit(file: ResultFile) -> str:
    commit = str(file.commit.get("id") or "")[:12]
    return f"{commit} with uncommitted changes" if file.commit.get("dirty") else commit
