"""What `import nsys` and `import ncu` do with their files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reports import machine, output
from reports.output import Format
from reports.profiles import ncu, nsys, result, table, times
from reports.profiles import run as runs
from reports.profiles.run import UNKNOWN, Run
from reports.profiles.times import Times
from reports.profiles.visit import Profile
from reports.units import counted
from specs import privacy
from specs.errors import UserError
from specs.gpus import GPUS

NO_RUN = "operations, shapes and bytes are unknown: --run takes the result file of the profiled run, which has them"


def import_nsys(path: Path, to: Path, run: Path | None, format: Format) -> None:  # noqa: A002
    """Write device times of a trace as a result file, and print them beside our own clock.

    Args:
        path: what `nsys export --type sqlite` wrote.
        to: where the file goes.
        run: result file of the traced run.
        format: of what is printed.

    Raises:
        UserError: a file cannot be used or written.
    """
    _write(path, nsys.read(path), to, runs.load(run), "nsys", format)


def import_ncu(path: Path, to: Path, run: Path | None, gpu: str | None, format: Format) -> None:  # noqa: A002
    """Write durations of a table as a result file, and print them.

    Args:
        path: what ncu printed with --csv.
        to: where the file goes.
        run: result file of the profiled run.
        gpu: its name or slug, where the table has none.
        format: of what is printed.

    Raises:
        UserError: a file cannot be used or written.
    """
    profile = ncu.read(path)
    if gpu:
        given = GPUS[gpu].names[0] if gpu in GPUS else gpu
        if (found := profile.gpu.get("gpu")) and found != given:
            raise UserError(f"{path}: names its GPU, {found}, where --gpu says {given}; leave --gpu out")
        profile = replace(profile, gpu=profile.gpu | {"gpu": given})
    _write(path, profile, to, runs.load(run), "ncu", format)


def _write(path: Path, profile: Profile, to: Path, run: Run, clock: str, format: Format) -> None:  # noqa: A002
    sources = [path, *([run.file.path] if run.file else [])]
    output.refuse_sources(to, sources)
    found, without = times.collect(profile)
    if not found:
        case, why = next(iter(without.items()))
        raise UserError(f"{path}: no device time of any of {len(without)} cases; the first, {case}: {why}")
    if clock == "ncu":
        found = [replace(one, spanned=False, launch=UNKNOWN) for one in found]
    notes = [*profile.notes, *_of_cases(found), *_of_run(found, run)]
    found, without, notes = _private(found, without, notes, run)
    content = result.content(profile, found, without, run, clock, notes)
    facts = [
        ("profiler", profile.profiler),
        ("machine", machine.describe(content["machine_info"])),
        ("run", str(run.file.path) if run.file else ""),
        ("written", str(to)),
        *(("without", f"{case}: {why}") for case, why in without.items()),
    ]
    page = table.page(str(path), found, run, [one for one in facts if one[1]], notes)
    data = table.data(found, run, notes)
    output.write(to, json.dumps(content, allow_nan=False) + "\n")
    output.emit(page, data, format, None, sources)


def _private(
    found: Sequence[Times], without: Mapping[str, str], notes: Sequence[str], run: Run
) -> tuple[list[Times], dict[str, str], list[str]]:
    """The same without names of people and machines, which a trace's texts may hold; cases of the run keep theirs."""
    text = privacy.here().text

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


def _of_cases(found: Sequence[Times]) -> list[str]:
    """What to mind, once for all cases that it is true of."""
    about: Mapping[str, list[str]] = {note: [] for one in found for note in one.notes}
    for one in found:
        for note in one.notes:
            about[note].append(one.case)
    return [
        note if len(cases) == len(found) else f"{len(cases)} of {len(found)} cases, as {cases[0]}: {note}"
        for note, cases in about.items()
    ]


def _of_run(found: Sequence[Times], run: Run) -> list[str]:
    if run.file is None:
        return [NO_RUN]
    strange = [one.case for one in found if one.case not in run.cases]
    return [f"not in {run.file.path.name}: {counted(len(strange), 'case')}, as {strange[0]}"] if strange else []
