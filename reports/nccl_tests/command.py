"""What `import nccl-tests` does with its files."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from reports import output, resultfile
from reports.nccl_tests import document, text
from reports.nccl_tests.formats import PROGRAMS
from reports.nccl_tests.points import SUITE, Points, operation
from reports.nccl_tests.run import Run
from specs.errors import UserError, find
from specs.gpus import GPUS, recognise
from specs.measurement import SCHEMA

MOST_BYTES = 64 * 2**20
AVERAGED = (
    "a time is the average over calls and, unless -a said otherwise, over ranks, where a sample of the suites is the "
    "slowest rank's"
)


def import_nccl_tests(paths: Sequence[Path], to: Path, gpu: str | None, op: str | None) -> str:
    """Write what several outputs of one machine hold as one result file; returns what to tell the user.

    Args:
        paths: outputs of nccl-tests, text or JSON.
        to: where the file goes.
        gpu: the GPU's name or slug, where the outputs have none that is known.
        op: operation of outputs that do not name their program.

    Raises:
        UserError: a file cannot be used, or they are not of one machine and library.
    """
    output.refuse_sources(to, paths)
    _refuse_twice(paths)
    named = _named(op)
    runs = [(path, run) for path in paths for run in _read(path)]
    machine = _machine(runs, gpu)
    points, notes = Points(), [AVERAGED]
    for path, run in runs:
        source = f"file {paths.index(path) + 1}, " if len(paths) > 1 else ""
        _add(points, run, source, path, named)
        notes.append(f"{source}{run.program or op}: {_how(run)}")
    points.settle()
    if not points.measured and not points.failed:
        reasons = list(points.not_run.values())
        raise UserError(f"{paths[0]}: none of {len(reasons)} rows can be used; the first: {reasons[0]}")
    output.write(to, json.dumps(_content(machine, points, notes, paths), allow_nan=False) + "\n")
    return "\n".join([*_summary(machine, points), f"{to}: written"])


def _refuse_twice(paths: Sequence[Path]) -> None:
    twice = next((path for path, count in Counter(path.resolve() for path in paths).items() if count > 1), None)
    if twice:
        raise UserError(f"{twice}: given twice; its times would count as two passes, so give it once")


def _named(op: str | None) -> str | None:
    """--op by our name or the program's."""
    known = {op: op for op in PROGRAMS.values()} | PROGRAMS
    return find(known, op, "operation of nccl-tests") if op else None


def _read(path: Path) -> list[Run]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: over {MOST_BYTES // 2**20} MiB; give the output of nccl-tests alone")
        content = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}); give a file that nccl-tests wrote") from error
    if not content.strip():
        raise UserError(f"{path}: empty; give what nccl-tests printed, or what its -J wrote")
    try:
        start = content.lstrip()
        return document.read(content) if start.startswith(("{", "[{", "[\n")) else text.read(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _add(points: Points, run: Run, source: str, path: Path, named: str | None) -> None:
    op = operation(run)
    if run.program is None:
        if named is None:
            raise UserError(f"{path}: does not say which program it is of; give --op, one of {', '.join(PROGRAMS)}")
        op = named
    elif op is None:
        programs = ", ".join(PROGRAMS)
        points.not_run[f"{SUITE}::{run.program}"] = f"{source}{run.program} has no counterpart here; known: {programs}"
        return
    elif named not in (None, op):
        raise UserError(f"{path}: says that it is of {run.program}, where --op says {named}; leave --op out")
    points.add(run, op, source)


def _machine(runs: Sequence[tuple[Path, Run]], gpu: str | None) -> resultfile.Record:
    """`machine_info` of what all runs ran on; names of hosts stay out of it."""
    (first, one), found = runs[0], runs[0][1].gpus[0]
    for path, run in runs:
        for what, left, right in (
            ("GPU", found, run.gpus[0]),
            ("library", f"{one.library} {one.library_version}", f"{run.library} {run.library_version}"),
        ):
            if left != right:
                raise UserError(f"{path}: {what} is {right}, and {left} in {first}; import them into a file each")
    if gpu:
        given = GPUS[gpu].names[0] if gpu in GPUS else gpu
        if recognise(found) and given != found:
            raise UserError(f"{first}: names its GPU, {found}, where --gpu says {given}; leave --gpu out")
        found = given
    version = f" {one.version}" if one.version else ""
    return {
        "shardbench_schema": SCHEMA,
        "device": "cuda",
        "gpu": found,
        "hosts": max(run.hosts for _, run in runs),
        **({one.library: one.library_version} if one.library_version else {}),
        "source": f"{one.library}-tests{version}, imported; not timed by shardbench",
    }


def _how(run: Run) -> str:
    where = f"{run.ranks} ranks on {run.hosts} host{'s' * (run.hosts > 1)}"
    several = f", one of {run.groups} groups that called at once" if run.groups > 1 else ""
    calls = f"average of {run.iterations} call{'s' * (run.iterations > 1)}"
    return f"{where}{several}, {run.launch}, {calls}{', each waited for' if run.blocking else ''}"


def _content(machine: resultfile.Record, points: Points, notes: list[str], paths: Sequence[Path]) -> resultfile.Record:
    return {
        "machine_info": machine,
        "commit_info": {},
        "benchmarks": [resultfile.entry(one) for one in points.measured.values()],
        "datetime": datetime.now(UTC).isoformat(),
        "version": "",
        "shardbench": resultfile.block(
            not_run=resultfile.reasons(points.not_run),
            failed=resultfile.reasons(points.failed),
            options={"files": len(paths)},
            notes=list(dict.fromkeys(notes)),
        ),
    }


def _summary(machine: resultfile.Record, points: Points) -> list[str]:
    ops = Counter(one.case.op for one in points.measured.values())
    taken = f"{len(points.measured)} cases of {machine['gpu']}: " + ", ".join(f"{n} {op}" for op, n in ops.items())
    refused = [f"not imported: {reason}" for reason in points.not_run.values()]
    return [taken, *refused, *(f"failed: {reason}" for reason in points.failed.values())]
