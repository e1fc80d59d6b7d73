"""`import nsys` and `import ncu`: print device times, write a result file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reports import formatting, output, results
from reports import machine as reports_machine
from reports.formatting import DASH, pluralize
from reports.importers import result_file
from reports.importers.profiler import nsys, times
from reports.importers.profiler import profile as profiler_profile
from reports.importers.profiler.profile import Profile
from reports.importers.profiler.times import CaseTimes, PartTimes
from reports.output import Block, Column, Facts, Format, Table
from reports.results import ResultFile
from specs import layer, measurement, privacy
from specs.errors import UserError
from specs.gpus import device_name
from specs.measurement import SCHEMA, Case, Measurement

# Facts that the profiled run's result file has and a profile lacks: operations, shapes, bytes, versions.

LENT_FACTS = (
    *(name for name in reports_machine.RELEVANT_FACTS if name != "variables"),
    "sms",
    "l2_bytes",
    "gpu_memory_bytes",
)
"""Machine facts taken from the run; environment variables may name hosts."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class ProfiledRun:
    """Cases of a run by name; empty where no file was given."""

    file: ResultFile | None = None
    cases: Mapping[str, Measurement] = field(default_factory=dict)

    def machine(self, seen: Mapping[str, Any]) -> dict[str, Any]:
        """Facts for `machine_info`: from the run, then from the profile.

        Raises:
            UserError: the run was on another GPU.
        """
        if self.file is None:
            return dict(seen)
        lent = {name: self.file.machine[name] for name in LENT_FACTS if self.file.machine.get(name) is not None}
        if seen.get("gpu") and lent.get("gpu") != seen["gpu"]:
            raise UserError(
                f"{self.file.path}: a run on {reports_machine.device_name(self.file.machine)}, and the profile is of "
                f"{seen['gpu']}; give --run the file that the profiled run itself wrote"
            )
        return lent | {name: value for name, value in seen.items() if value is not None}

    def case(self, name: str, question: str, launch: str, kernel: str) -> Case:
        """Case of this name with all known facts.

        Without the run, few facts are known, and flops and bytes are 0.
        """
        known = self.cases.get(name)
        whole_model = known and (known.case.op == measurement.STEP_OP or known.case.question == layer.SHARES_QUESTION)
        if known and not whole_model:  # a profiled step would pass for one that was run
            return known.case
        return Case(
            name=name,
            question=question or (known.case.question if known else UNKNOWN),
            op=UNKNOWN,
            implementation=UNKNOWN,
            kernel=kernel,
            dtype=known.case.dtype if known else UNKNOWN,
            flops=0,
            hbm_bytes=0,
            cache=UNKNOWN,
            launch=launch,
        )

    def clock(self, name: str) -> float | None:
        """Seconds per call by the suites' clock, from the run's file."""
        return self.cases[name].median if name in self.cases else None


def load_run(path: Path | None) -> ProfiledRun:
    """Read the file of `--run`.

    Raises:
        UserError: the file cannot be read, is a profile itself, or holds published figures.
    """
    if path is None:
        return ProfiledRun()
    file = results.load(path)
    if file.profiler:
        raise UserError(f"{path}: a profile by {file.profiler}; give --run the file that `pytest suites/` wrote")
    if file.published:
        raise UserError(f"{path}: published figures, no run; give --run the file that `pytest suites/` wrote")
    return ProfiledRun(file, {one.case.name: one for one in file.measurements})


# Result file with a profile's device times, which `show` and `compare` read.

PART_OPS: Mapping[str, str] = {"norm": "rmsnorm", "rotary": "rotary", "swiglu": "swiglu", "attention": "attention"}
"""Operation of each part; all other parts are linears."""


def result_content(
    profile: Profile,
    found: Sequence[CaseTimes],
    without: Mapping[str, str],
    run: ProfiledRun,
    clock: str,
    notes: Sequence[str],
) -> result_file.Record:
    """Content of the whole result file.

    Args:
        profile: profile that was read.
        found: its cases.
        without: reason by case for a missing time.
        run: source of further facts.
        clock: `nsys` or `ncu`.
        notes: caveats.
    """
    machine = {
        "shardbench_schema": SCHEMA,
        "device": "cuda",
        **run.machine(profile.gpu),
        "profiler": profile.profiler,
    }
    machine["gpu"] = machine.get("gpu") or f"unknown GPU ({machine.get('arch', 'of unknown architecture')})"
    return {
        "machine_info": machine,
        "commit_info": dict(run.file.commit) if run.file else {},
        "benchmarks": [result_file.benchmark_entry(one) for times in found for one in _measurements(times, run, clock)],
        "datetime": datetime.now(UTC).isoformat(),
        "version": "",
        "shardbench": result_file.shardbench_block(
            not_run=result_file.reason_rows(without),
            failed=[],
            options={"profiler": clock, "run": run.file is not None},
            notes=list(notes),
        ),
    }


def _measurements(times: CaseTimes, run: ProfiledRun, clock: str) -> Iterator[Measurement]:
    case = run.case(times.case, times.question, times.launch, times.kernels[0])
    facts: dict[str, Any] = {"clock": clock, "stopped_by": "passes"}
    seconds = tuple((one.busy,) for one in times.samples)
    calls = max(1, round(times.calls / len(times.samples)))
    yield Measurement(case=case, seconds=seconds, calls=calls, telemetry=_read(times.read_bytes), **facts)
    for part in times.parts:
        each = tuple((one / part.per_layer,) for one in part.seconds)
        read = None if part.read_bytes is None else part.read_bytes / part.per_layer
        yield Measurement(case=_part(case, part), seconds=each, calls=calls, telemetry=_read(read), **facts)


def _part(case: Case, part: PartTimes) -> Case:
    """Part of a layer as the case of one of its calls."""
    return replace(
        case,
        name=f"{case.name}/{part.name}",
        question="layer",
        op=PART_OPS.get(part.name, "linear"),
        kernel=part.kernel,
        layer=part.name,
        flops=0,
        hbm_bytes=0,
        n=None,
        k=None,
        per_layer=part.per_layer,
    )


def _read(count: float | None) -> dict[str, float] | None:
    return None if count is None else {"dram_bytes_read": count}


MAX_KERNEL_NAME = 60
"""Maximum letters of a kernel's name: templates have hundreds."""
CLOCK_TOLERANCE = 0.05
"""Relative difference of clock and device time that needs no explanation."""
OVERLAP_RATIO = 1.02
"""Ratio of summed to busy time above which streams are said to overlap."""
EARLY_START = "kernels start before the one before them ends, on one stream (programmatic dependent launch)"


def own_clock(times: CaseTimes, run: ProfiledRun) -> float | None:
    """Seconds per call by the suites' clock: of the trace, else of the run's file."""
    return times.clock or run.clock(times.case)


def profile_page(
    title: str, found: Sequence[CaseTimes], run: ProfiledRun, facts: Sequence[tuple[str, str]], notes: Sequence[str]
) -> list[Block]:
    """Page with all tables and notes; `facts` stand above the tables."""
    blocks: list[Block] = [Facts(title=title, rows=tuple(facts))]
    if found:
        blocks.append(_cases(found, run))
    blocks += [_parts(one) for one in found if one.parts]
    return [*blocks, Facts(title="notes", rows=tuple(("", note) for note in notes), level=3)] if notes else blocks


def profile_data(found: Sequence[CaseTimes], run: ProfiledRun, notes: Sequence[str]) -> dict[str, Any]:
    """Device times as JSON data."""
    return {"cases": [_record(one, run) for one in found], "notes": list(notes)}


def _cases(found: Sequence[CaseTimes], run: ProfiledRun) -> Table:
    time = formatting.choose_scale(formatting.SECONDS, [one.busy for one in found])
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
            DASH if one.kernels_per_call is None else f"{one.kernels_per_call:.4g}",
            str(one.streams),
            time(one.busy),
            time(one.span) if one.spanned else DASH,
            time(own_clock(one, run)),
            formatting.ratio(ratio) if (ratio := _ratio(one, run)) else DASH,
            _dram(one, run),
            _gap(one, run),
        )
        for one in found
    )
    caption = "a call, the median over visits"
    return Table(title="device time", columns=columns, groups=(rows,), caption=caption).without_empty(DASH)


def _ratio(times: CaseTimes, run: ProfiledRun) -> float | None:
    own = own_clock(times, run)
    return own / times.busy if own else None


def _dram(times: CaseTimes, run: ProfiledRun) -> str:
    if times.read_bytes is None:
        return DASH
    needed = run.cases[times.case].case.hbm_bytes if times.case in run.cases else 0
    share = f" ({formatting.percent(times.read_bytes / needed)})" if needed else ""
    return formatting.decimal_bytes(times.read_bytes) + share


def _gap(times: CaseTimes, run: ProfiledRun) -> str:
    """Explain the gap between clock and device time, as far as the trace tells."""
    said, ratio = [], _ratio(times, run)
    if not times.spanned:
        return (
            ""
            if not ratio or abs(ratio - 1) <= CLOCK_TOLERANCE
            else "caches and clocks were not as in the run, or gaps"
        )
    if times.summed > OVERLAP_RATIO * times.busy:
        what = "streams overlap" if times.streams > 1 else EARLY_START
        said.append(f"{what}: kernels add up to {times.summed / times.busy:.2f} times the busy time")
    if ratio and ratio > 1 + CLOCK_TOLERANCE and not times.complete:
        said.append(f"device idle or at kernels not counted here, {formatting.percent(1 - 1 / ratio)}: see the notes")
    elif ratio and ratio > 1 + CLOCK_TOLERANCE:
        what = "the host's launch gaps" if times.launch == "eager" else "gaps between a graph's kernels"
        said.append(f"device idle {formatting.percent(1 - 1 / ratio)}: {what}")
    elif ratio and ratio < 1 - CLOCK_TOLERANCE:
        said.append("the profiler stretches kernels: trust the clock")
    return "; ".join(said)


def _parts(times: CaseTimes) -> Table:
    time = formatting.choose_scale(formatting.SECONDS, [one.busy for one in times.parts])
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
            formatting.percent(one.share),
            DASH if one.read_bytes is None else formatting.decimal_bytes(one.read_bytes),
            one.kernel if len(one.kernel) <= MAX_KERNEL_NAME else f"{one.kernel[: MAX_KERNEL_NAME - 1]}…",
        )
        for one in times.parts
    )
    return Table(
        title="parts", columns=columns, groups=(rows,), caption=f"of a layer · {times.case.rpartition('::')[2]}"
    ).without_empty(DASH)


def _record(times: CaseTimes, run: ProfiledRun) -> dict[str, Any]:
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
        "sum_seconds": times.summed,
        "clock_seconds": own_clock(times, run),
        "ratio": _ratio(times, run),
        "launch": times.launch,
        "dram_bytes_read": times.read_bytes,
        "explained_by": _gap(times, run),
        "parts": parts,
    }


# Commands `import nsys` and `import ncu`.

NO_RUN_NOTE = (
    "operations, shapes and bytes are unknown: --run takes the result file of the profiled run, which has them"
)


def import_nsys(path: Path, to: Path, run: Path | None, format: Format) -> None:  # noqa: A002
    """Write a trace's device times as a result file, and print them beside the clock.

    Args:
        path: output of `nsys export --type sqlite`.
        to: result file to write.
        run: result file of the traced run.
        format: format of the printed report.

    Raises:
        UserError: a file cannot be used or written.
    """
    _write(path, nsys.read_trace(path), to, load_run(run), "nsys", format)


def import_ncu(path: Path, to: Path, run: Path | None, gpu: str | None, format: Format) -> None:  # noqa: A002
    """Write durations of a table as a result file, and print them.

    Args:
        path: output of ncu with --csv.
        to: result file to write.
        run: result file of the profiled run.
        gpu: name or slug of the GPU, where the table has none.
        format: format of the printed report.

    Raises:
        UserError: a file cannot be used or written.
    """
    profile = profiler_profile.read_ncu_csv(path)
    if gpu:
        given = device_name(gpu)
        if (found := profile.gpu.get("gpu")) and found != given:
            raise UserError(f"{path}: names its GPU, {found}, where --gpu says {given}; leave --gpu out")
        profile = replace(profile, gpu=profile.gpu | {"gpu": given})
    _write(path, profile, to, load_run(run), "ncu", format)


def _write(path: Path, profile: Profile, to: Path, run: ProfiledRun, clock: str, format: Format) -> None:  # noqa: A002
    sources = [path, *([run.file.path] if run.file else [])]
    output.refuse_sources(to, sources)
    found, without = times.collect_times(profile)
    if not found:
        case, why = next(iter(without.items()))
        raise UserError(f"{path}: no device time of any of {len(without)} cases; the first, {case}: {why}")
    if clock == "ncu":
        found = [replace(one, spanned=False, launch=UNKNOWN) for one in found]
    notes = [*profile.notes, *_case_notes(found), *_run_notes(found, run)]
    found, without, notes = _scrub_names(found, without, notes, run)
    content = result_content(profile, found, without, run, clock, notes)
    facts = [
        ("profiler", profile.profiler),
        ("machine", reports_machine.describe(content["machine_info"])),
        ("run", str(run.file.path) if run.file else ""),
        ("written", str(to)),
        *(("without", f"{case}: {why}") for case, why in without.items()),
    ]
    page = profile_page(str(path), found, run, [one for one in facts if one[1]], notes)
    data = profile_data(found, run, notes)
    output.write_file(to, json.dumps(content, allow_nan=False) + "\n")
    output.emit(page, data, format, None, sources)


def _scrub_names(
    found: Sequence[CaseTimes], without: Mapping[str, str], notes: Sequence[str], run: ProfiledRun
) -> tuple[list[CaseTimes], dict[str, str], list[str]]:
    """Remove names of people and machines, which a trace's texts may hold.

    Names of cases that the run has are kept.
    """
    text = privacy.current_identity().text

    def case(name: str) -> str:
        return name if name in run.cases else text(name)

    return (
        [
            replace(
                one,
                case=case(one.case),
                question=text(one.question),
                kernels=[text(kernel) for kernel in one.kernels],
                parts=[replace(part, kernel=text(part.kernel)) for part in one.parts],
            )
            for one in found
        ],
        {case(name): text(why) for name, why in without.items()},
        [text(note) for note in notes],
    )


def _case_notes(found: Sequence[CaseTimes]) -> list[str]:
    """Notes on the cases, each once for all cases concerned."""
    about: Mapping[str, list[str]] = {note: [] for one in found for note in one.notes}
    for one in found:
        for note in one.notes:
            about[note].append(one.case)
    return [
        note if len(cases) == len(found) else f"{len(cases)} of {len(found)} cases, as {cases[0]}: {note}"
        for note, cases in about.items()
    ]


def _run_notes(found: Sequence[CaseTimes], run: ProfiledRun) -> list[str]:
    if run.file is None:
        return [NO_RUN_NOTE]
    strange = [one.case for one in found if one.case not in run.cases]
    return [f"not in {run.file.path.name}: {pluralize(len(strange), 'case')}, as {strange[0]}"] if strange else []
