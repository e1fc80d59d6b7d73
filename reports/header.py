"""The lines above a file's tables, and those below on what did not run."""

from collections import Counter
from collections.abc import Iterator

from reports import ceilings, clocks, command, machine, units
from reports.files import ResultFile
from reports.line import Interval
from reports.page import Facts
from specs.gpus import Gpu
from specs.roofline import Ceilings

HOW = {"graph": "in a graph", "eager": "eager"}

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
        *_of_a_gpu(file),
        ("in doubt", "; ".join(f"{name}: {', '.join(words)}" for name, words in ceilings.in_doubt(file).items())),
    ]
    if gpu:
        used = {one.case.dtype for one in file.measurements}
        sheet = {dtype: peak for dtype, peak in gpu.flops_per_second.items() if dtype in used}
        rows.append(("datasheet", f"{gpu.slug}: {peaks(Ceilings(gpu.hbm_bytes_per_second, sheet))}"))
    elif name := file.machine.get("gpu"):
        rows.append(("datasheet", f"unknown: no row of specs/gpus.py is a {name} of this memory"))
    return Facts(title=str(file.path), rows=tuple((name, text) for name, text in rows if text), level=2)


def _of_a_gpu(file: ResultFile) -> Iterator[tuple[str, str]]:
    """Ceilings that a run on a GPU has besides, and the clock that all of its times were taken at."""
    if not file.machine.get("gpu"):
        return
    rates = {how: units.one(units.BYTES_PER_SECOND, one.bytes_per_second) for how, one in ceilings.copies(file).items()}
    yield "copy", ", ".join(f"{rate} {HOW.get(how, how)}" for how, rate in rates.items())
    if idle := ceilings.empty(file):
        beside = ceilings.launch(file, idle.case.launch)
        more = f"; {units.one(units.SECONDS, beside.median)} with one element to compute" if beside else ""
        yield "empty kernel", f"{units.one(units.SECONDS, idle.median)} {HOW[idle.case.launch]}{more}"
    if found := ceilings.read_line(file):
        fitted, sizes = found
        least, most = (units.decimal_bytes(size) for size in (sizes[0], sizes[-1]))
        over = f"a line through reads of {least} to {most} in a graph"
        yield "launch intercept", f"{_term(fitted.line.alpha, fitted.alpha, units.SECONDS)}: {over}"
        yield "bandwidth slope", _term(fitted.line.rate, fitted.rate, units.BYTES_PER_SECOND)
    yield "SM clock", clocks.told(file)


def _term(value: float | None, interval: Interval | None, unit: units.Quantity) -> str:
    """A term of a line with its 95 % interval."""
    if value is None:
        return "not seen"
    return units.one(unit, value) + (f" ({' to '.join(units.one(unit, end) for end in interval)})" if interval else "")


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


def peaks(roof: Ceilings) -> str:
    """Read bandwidth, and the matmul rate of each number format."""
    memory = roof.read_bytes_per_second
    rates = [f"{dtype} {units.one(units.FLOPS_PER_SECOND, peak)}" for dtype, peak in roof.flops_per_second.items()]
    return ", ".join(([f"read {units.one(units.BYTES_PER_SECOND, memory)}"] if memory else []) + rates)


def _minute(datetime: str) -> str:
    """2026-01-31T12:34:56.789+00:00 to the minute, as UTC where it says so."""
    utc = " UTC" if datetime.endswith(("+00:00", "Z")) else ""
    return datetime[:16].replace("T", " ") + utc


def _commit(file: ResultFile) -> str:
    commit = str(file.commit.get("id") or "")[:12]
    return f"{commit} with uncommitted changes" if file.commit.get("dirty") else commit
