"""Build the tables of a file, one for each question, with header and footer."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from reports import formatting, machine, roofline
from reports.formatting import DASH, group_by_question, percent, question_title
from reports.output import Column, Facts, Table
from reports.results import ResultFile
from reports.roofline import CaseMetrics, Interval
from specs import layer
from specs.gpus import Gpu
from specs.measurement import key_without
from specs.roofline import Ceilings

# Lines above a file's tables, and lines below on cases that did not run.

LAUNCH_WORDS = {"graph": "in a graph", "eager": "eager"}

NO_CEILINGS = "none in this file: run suites/bench_ceilings.py with the others for shares"


def header_facts(file: ResultFile, measured: Ceilings, gpu: Gpu | None) -> Facts:
    """Machine, date, commit, case counts, and the ceilings that shares refer to."""
    span = pass_range(file)
    counts = [f"{len(file.measurements)} cases in {span} pass{'es' * (span != '1')}"]
    counts += [f"{len(file.not_run)} not run"] if file.not_run else []
    counts += [f"{len(file.failed)} failed"] if file.failed else []
    rows = [
        ("machine", machine.describe(file.machine)),
        ("software", machine.software_versions(file.machine)),
        ("source", str(file.machine.get("source") or "")),
        ("profiler", file.profiler and f"{file.profiler}: device time as it saw it, attached to the run"),
        ("frameworks", _frameworks(file)),
        ("imported" if file.published else "date", _minute(file.datetime)),
        ("commit", _commit(file)),
        ("command", machine.run_command(file)),
        ("points" if file.published else "measured", ", ".join(counts)),
        ("ceilings", ceilings_text(measured) or ("" if file.published else NO_CEILINGS)),
        *_gpu_rows(file),
        (
            "in doubt",
            "; ".join(f"{name}: {', '.join(words)}" for name, words in machine.doubtful_ceilings(file).items()),
        ),
    ]
    if gpu:
        used = {one.case.dtype for one in file.measurements}
        sheet = {dtype: peak for dtype, peak in gpu.flops_per_second.items() if dtype in used}
        rows.append(("datasheet", f"{gpu.slug}: {ceilings_text(Ceilings(gpu.hbm_bytes_per_second, sheet))}"))
    elif name := file.machine.get("gpu"):
        rows.append(("datasheet", f"unknown: no row of specs/gpus.py is a {name} of this memory"))
    return Facts(title=str(file.path), rows=tuple((name, text) for name, text in rows if text), level=2)


def _gpu_rows(file: ResultFile) -> Iterator[tuple[str, str]]:
    """Yield further ceilings of a run on a GPU, and the SM clock of its times."""
    if not file.machine.get("gpu"):
        return
    rates = {
        how: formatting.with_unit(formatting.BYTES_PER_SECOND, one.bytes_per_second)
        for how, one in machine.fastest_copies(file).items()
    }
    yield "copy", ", ".join(f"{rate} {LAUNCH_WORDS.get(how, how)}" for how, rate in rates.items())
    if idle := machine.empty_kernel(file):
        beside = machine.fastest_launch(file, idle.case.launch)
        more = (
            f"; {formatting.with_unit(formatting.SECONDS, beside.median)} with one element to compute" if beside else ""
        )
        yield (
            "empty kernel",
            f"{formatting.with_unit(formatting.SECONDS, idle.median)} {LAUNCH_WORDS[idle.case.launch]}{more}",
        )
    if found := machine.fit_reads(file):
        fitted, sizes = found
        least, most = (formatting.decimal_bytes(size) for size in (sizes[0], sizes[-1]))
        over = f"a line through reads of {least} to {most} in a graph"
        yield "launch intercept", f"{_term(fitted.line.alpha, fitted.alpha, formatting.SECONDS)}: {over}"
        yield "bandwidth slope", _term(fitted.line.rate, fitted.rate, formatting.BYTES_PER_SECOND)
    yield "SM clock", roofline.clock_text(file)


def _term(value: float | None, interval: Interval | None, unit: formatting.Quantity) -> str:
    """Format a term of a line with its 95 % interval."""
    if value is None:
        return "not seen"
    return formatting.with_unit(unit, value) + (
        f" ({' to '.join(formatting.with_unit(unit, end) for end in interval)})" if interval else ""
    )


def _frameworks(file: ResultFile) -> str:
    """Frameworks of published times, with versions."""
    found = {f"{one.framework} {one.version}" for one in file.measurements if one.framework and one.case.op == "linear"}
    return ", ".join(sorted(found))


def footer_facts(file: ResultFile) -> list[Facts]:
    """Reasons for missing cases with counts, each failure, and the notes."""
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


def pass_range(file: ResultFile) -> str:
    """Number of passes of the cases: `6`, `6 to 14`."""
    counts = [len(one.seconds) for one in file.measurements]
    return "0" if not counts else f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def ceilings_text(roof: Ceilings) -> str:
    """Format the read bandwidth, and the matmul rate of each number format."""
    memory = roof.read_bytes_per_second
    rates = [
        f"{dtype} {formatting.with_unit(formatting.FLOPS_PER_SECOND, peak)}"
        for dtype, peak in roof.flops_per_second.items()
    ]
    return ", ".join(([f"read {formatting.with_unit(formatting.BYTES_PER_SECOND, memory)}"] if memory else []) + rates)


def _minute(datetime: str) -> str:
    """Cut 2026-01-31T12:34:56.789+00:00 to the minute; add UTC where it says so."""
    utc = " UTC" if datetime.endswith(("+00:00", "Z")) else ""
    return datetime[:16].replace("T", " ") + utc


def _commit(file: ResultFile) -> str:
    commit = str(file.commit.get("id") or "")[:12]
    return f"{commit} with uncommitted changes" if file.commit.get("dirty") else commit


Cell = Callable[[CaseMetrics], str]
NOTES_COLUMN = Column("notes", number=False, prose=True)


def build_tables(figures: Iterable[CaseMetrics]) -> list[Table]:
    """Build a table for each question."""
    return [_table(question, members) for question, members in group_by_question(figures, lambda f: f.measurement.case)]


def _table(question: str, figures: Sequence[CaseMetrics]) -> Table:
    groups = _groups(question, figures)
    figures = [one for group in groups for one in group]
    among = {"layer": formatting.PART_FIELDS, layer.SHARES_QUESTION: formatting.SHARE_FIELDS}.get(
        question, formatting.CASE_FIELDS
    )
    labelled, names, caption = formatting.label_columns([one.measurement.case for one in figures], among)
    everywhere = shared_warnings(figures)
    columns = [*_numbers(figures), (NOTES_COLUMN, _notes(everywhere))]
    if question == "sweep":
        columns.insert(2, _growth(groups))
    name = iter(names)
    table = Table(
        title=question_title(question),
        columns=(*labelled, *(column for column, _ in columns)),
        groups=tuple(tuple((*next(name), *(cell(one) for _, cell in columns)) for one in group) for group in groups),
        caption=" · ".join([caption, *everywhere]),
        notes=(
            *_missing_peak_notes(figures),
            *roofline.attention_notes(figures),
            *formatting.dependent_launch_notes(one.measurement.case.implementation for one in figures),
        ),
    )
    return table.without_empty(DASH)


def _numbers(figures: Sequence[CaseMetrics]) -> list[tuple[Column, Cell]]:
    """Numeric columns, each in one unit for the whole table."""
    time = formatting.choose_scale(formatting.SECONDS, [f.measurement.median for f in figures])
    memory = formatting.choose_scale(formatting.BYTES_PER_SECOND, [f.bytes_per_second for f in figures])
    compute = formatting.choose_scale(formatting.FLOPS_PER_SECOND, [f.flops_per_second for f in figures])
    wire = formatting.choose_scale(formatting.BYTES_PER_SECOND, [f.wire_bytes_per_second for f in figures])
    return [
        (Column(f"median\n{time.symbol}"), lambda f: time(f.measurement.median)),
        (Column("±\n95%"), lambda f: formatting.interval_width(f.half_width)),
        (Column(memory.symbol), lambda f: memory(f.bytes_per_second)),
        (Column(compute.symbol), lambda f: compute(f.flops_per_second)),
        (Column(f"sent\n{wire.symbol}"), lambda f: wire(f.wire_bytes_per_second)),
        (Column("of\nfloor"), lambda f: percent(f.floor_share)),
        (Column("bound", number=False), lambda f: f.bound or DASH),
        (Column("of\nsheet"), lambda f: percent(f.datasheet_share)),
        (Column("noise"), lambda f: percent(f.noise)),
    ]


def shared_warnings(figures: Sequence[CaseMetrics]) -> list[str]:
    """Warnings about all rows, which the caption shows."""
    return [word for word in figures[0].warnings() if all(word in one.warnings() for one in figures)]


def _notes(everywhere: Container[str]) -> Cell:
    """Cell with the warnings about a row, except those in the caption."""
    return lambda f: ", ".join(word for word in f.warnings() if word not in everywhere)


def _missing_peak_notes(figures: Iterable[CaseMetrics]) -> tuple[str, ...]:
    """Notes on number formats that lack a floor in a file with ceilings."""
    lacking = {
        f.measurement.case.dtype: None
        for f in figures
        if f.flops_per_second
        and f.measured.flops_per_second
        and f.measurement.case.dtype not in f.measured.flops_per_second
    }
    return tuple(f"no floor for {dtype}: this file has no matmul ceiling of that dtype" for dtype in lacking)


def _groups(question: str, figures: Sequence[CaseMetrics]) -> list[list[CaseMetrics]]:
    """Group rows: series over tokens, a layer with its parts, or all together."""
    if question == "sweep":
        return _series(figures)
    if question == layer.SHARES_QUESTION:
        return _parts(figures)
    return _layers(figures) if question == "layer" else [list(figures)]


def _parts(figures: Iterable[CaseMetrics]) -> list[list[CaseMetrics]]:
    """Group the parts of a rank's share by name, each by rising tokens."""
    found: dict[str | None, list[CaseMetrics]] = {}
    for one in sorted(figures, key=lambda f: f.measurement.case.tokens or 0):
        found.setdefault(one.measurement.case.layer, []).append(one)
    return [found[part] for part in sorted(found, key=str)]


def _layers(figures: Iterable[CaseMetrics]) -> list[list[CaseMetrics]]:
    """Group a layer and its parts at one shape, over launches and implementations."""
    groups: dict[tuple[object, ...], list[CaseMetrics]] = {}
    for one in figures:
        case = one.measurement.case
        shape = case.tokens, case.batch, case.context
        groups.setdefault((case.model, case.tp, case.pp, *shape, case.dtype), []).append(one)
    return list(groups.values())


SERIES_KEY = key_without(
    *("name", "kernel", "tokens", "message_bytes", "flops", "hbm_bytes", "wire_bytes_sent_per_rank")
)
"""Fields that the cases of a series share; kernel, bytes and flops follow from the tokens."""


def _series(figures: Iterable[CaseMetrics]) -> list[list[CaseMetrics]]:
    """Group cases that differ only in tokens, by rising tokens."""
    series: dict[tuple[object, ...], list[CaseMetrics]] = {}
    for one in figures:
        series.setdefault(SERIES_KEY(one.measurement.case), []).append(one)
    return [sorted(group, key=lambda f: f.measurement.case.tokens or 0) for group in series.values()]


def _growth(groups: Sequence[Sequence[CaseMetrics]]) -> tuple[Column, Cell]:
    """Column of the time relative to that of the fewest tokens of its group."""
    least = {id(one): group[0] for group in groups for one in group}
    fewest = {group[0].measurement.case.tokens for group in groups}
    title = f"t/t({fewest.pop()})" if len(fewest) == 1 else "t/t(least)"
    return Column(title), lambda f: f"{f.measurement.median / least[id(f)].measurement.median:.2f}"
