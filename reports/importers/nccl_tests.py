"""`import nccl-tests`: write outputs of nccl-tests as one result file."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from reports import output
from reports.importers import nccl_tests_output, result_file
from reports.importers.nccl_tests_output import (
    COUNTED_BY_RANK,
    DTYPE_NAMES,
    ITEMSIZE,
    PROGRAMS,
    NcclTestsRow,
    NcclTestsRun,
)
from specs import traffic
from specs.errors import UserError, find
from specs.gpus import device_name, recognise_gpu
from specs.measurement import SCHEMA, Case, Measurement

# Consistency of a row: size, count, time and both bandwidths state the same in several units.
#
# Each printed figure stands for the interval that rounds to it. A row is refused where no exact figures fit.

FP32_TOLERANCE = 1e-6
"""Relative error of bandwidths that old versions kept in fp32."""
MAX_ROUNDING = 0.02
"""Relative rounding of a bandwidth below which a wrong unit shows.

GiB instead of GB is a difference of 7 %.
"""
UNIT_MISTAKES = (
    (1e3, "as if the time were in ms"),
    (1e6, "as if the time were in s"),
    (1e-3, "as if the time were in ns or bandwidths in MB/s"),
    (1.073741824, "as if bandwidths were in GiB/s"),
    (1 / 8, "as if bandwidths were in Gbit/s"),
)
"""Ratio of computed to printed bandwidth for each mistake of unit."""


def find_contradiction(op: str, ranks: int, row: NcclTestsRow) -> str | None:
    """Describe why a row is impossible; None where it is consistent."""
    return _size(op, ranks, row) or _bandwidths(op, ranks, row)


def is_precise(row: NcclTestsRow) -> bool:
    """True where the bandwidth has enough digits to show a wrong unit."""
    return row.algbw > 0 and float(_rounding(row.algbw) / row.algbw) < MAX_ROUNDING


def _size(op: str, ranks: int, row: NcclTestsRow) -> str | None:
    if row.type not in ITEMSIZE:
        return f"type {row.type}: how many bytes an element has is not known; known are {', '.join(ITEMSIZE)}"
    if not row.size:
        return "moves nothing: fewer elements than ranks"
    parts, each = (ranks if op in COUNTED_BY_RANK else 1), ITEMSIZE[row.type]
    if row.size == row.elements * each * parts:
        return None
    times = f" x {parts} ranks" if parts > 1 else ""
    hint = "; elements given as bytes?" if row.size == row.elements and each > 1 else ""
    return f"size {row.size} B is not count {row.elements} x {each} B{times} = {row.elements * each * parts} B{hint}"


def _bandwidths(op: str, ranks: int, row: NcclTestsRow) -> str | None:
    time = row.microseconds
    if not time > 0:
        return f"time {time} us is not above 0"
    moved = (traffic.algbw(op, row.size, 1.0) or 0.0), (traffic.busbw(op, ranks, row.size, 1.0) or 0.0)
    for name, printed, count in zip(("algbw", "busbw"), (row.algbw, row.busbw), moved, strict=True):
        low, right, high = (count / 1e3 / float(one) for one in (time + _rounding(time), time, time - _rounding(time)))
        least, most = float(printed - _rounding(printed)), float(printed + _rounding(printed))
        if most < low * (1 - FP32_TOLERANCE) or least > high * (1 + FP32_TOLERANCE):
            return f"{name} {printed} GB/s, but {row.size} B in {time} us are {right:.4g} GB/s{_hint(printed, right)}"
    return None


def _rounding(printed: Decimal) -> Decimal:
    """Half a unit of the last digit."""
    exponent = printed.as_tuple().exponent
    return Decimal(1).scaleb(exponent) / 2 if isinstance(exponent, int) else Decimal(0)


def _hint(printed: Decimal, right: float) -> str:
    if not right or not printed:
        return ""
    ratio = right / float(printed)
    near = [text for mistake, text in UNIT_MISTAKES if abs(ratio / mistake - 1) < MAX_ROUNDING]
    return f", {near[0]}" if near else ""


# Rows as cases: accepted, failed, or unusable.
#
# A case that is printed again, by -N or in another file of the same machine, is another pass of the case.

SUITE = "nccl-tests"
CLOCK = "nccl-tests"
UNCHECKED = "result unchecked"


@dataclass
class ImportedCases:
    """Cases gathered by an import.

    Attributes:
        measured: measurement by case name, a pass for each time that the case was printed.
        failed, not_run: reason by case name.
    """

    measured: dict[str, Measurement] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)

    def add(self, run: NcclTestsRun, op: str, source: str) -> None:
        """Add the rows of a run.

        `source`: name of the file in reasons, where there are several.
        """
        for place, reason in run.unread.items():
            self.not_run[f"{SUITE}::{op}[{source}{place}]"] = f"{source}{place}: {reason}"
        untrue = {row: find_contradiction(op, run.ranks, row) for row in run.rows}
        witness = next((row.place for row, reason in untrue.items() if reason and row.size), None)
        for row, contradiction in untrue.items():
            case = _case(run, op, row)
            if contradiction:
                self.not_run[case.name] = f"{source}{row.place}: {contradiction}"
            elif witness and not is_precise(row):
                few = f"too few digits to be checked, and {witness} of the same run contradicts itself"
                self.not_run[case.name] = f"{source}{row.place}: {few}"
            elif wrong := _check_failure(run, row):
                self.failed[case.name] = f"{source}{row.place}: {wrong}"
            else:
                self._measured(_measurement(run, case, row))

    def drop_inconsistent(self) -> None:
        """Drop measured cases that failed or were refused another time."""
        for name in self.failed | self.not_run:
            self.measured.pop(name, None)
        for name in self.failed:
            self.not_run.pop(name, None)

    def _measured(self, one: Measurement) -> None:
        before = self.measured.get(one.case.name)
        self.measured[one.case.name] = replace(before, seconds=before.seconds + one.seconds) if before else one


def operation_of(run: NcclTestsRun) -> str | None:
    """Our name of the program's operation; None where there is no counterpart."""
    return PROGRAMS.get((run.program or "").rpartition("/")[2].removesuffix("_mpi"))


def _check_failure(run: NcclTestsRun, row: NcclTestsRow) -> str | None:
    """Failure that the row's check found, or None.

    Of an old version's largest error, only the end of the run says whether it is too large.
    """
    if row.wrong in ("N/A", "0"):
        return None
    if run.errors:
        return f"an error of {row.wrong} in a run with {run.out_of_bounds} out of bounds" if run.out_of_bounds else None
    return f"{row.wrong} elements were wrong"


def _case(run: NcclTestsRun, op: str, row: NcclTestsRow) -> Case:
    dtype = DTYPE_NAMES.get(row.type, row.type)
    labels = [
        f"{run.ranks}x{row.size}",
        dtype,
        run.library,
        run.launch,
        "in-place" if row.in_place else "out-of-place",
        row.redop if row.redop not in ("sum", "none") else "",
        f"root{row.root}" if row.root > 0 else "",
        f"{run.hosts}-hosts" if run.hosts > 1 else "",
        f"{run.groups}-groups" if run.groups > 1 else "",
        f"{run.aggregated}-grouped" if run.aggregated > 1 else "",
        "blocking" if run.blocking else "",
    ]
    return Case(
        name=f"{SUITE}::{op}[{'-'.join(filter(None, labels))}]",
        question="communication",
        op=op,
        implementation=run.library,
        kernel=f"{run.library}_{op}{'_in_place' if row.in_place else ''}",
        dtype=dtype,
        flops=0,
        hbm_bytes=0,
        wire_bytes_sent_per_rank=traffic.bytes_sent_per_rank(op, run.ranks, row.size),
        cache="unknown",  # each call moves on in the buffers, as far as there is room
        launch=run.launch,
        ranks=run.ranks,
        message_bytes=row.size,
    )


def _measurement(run: NcclTestsRun, case: Case, row: NcclTestsRow) -> Measurement:
    return Measurement(
        case=case,
        seconds=((float(row.microseconds) * 1e-6,),),
        clock=CLOCK,
        calls=run.iterations * run.aggregated * max(1, run.graph),
        framework=f"{run.library}-tests",
        version=run.version,
        kernel_source=f"{run.library.upper()} {run.library_version}" if run.library_version else None,
        doubts=(UNCHECKED,) if row.wrong == "N/A" else (),
    )


MAX_BYTES = 64 * 2**20
AVERAGE_NOTE = (
    "a time is the average over calls and, unless -a said otherwise, over ranks, where a sample of the suites is the "
    "slowest rank's"
)


def import_nccl_tests(paths: Sequence[Path], to: Path, gpu: str | None, op: str | None) -> str:
    """Write outputs of one machine as a result file; return a message for the user.

    Args:
        paths: outputs of nccl-tests, text or JSON.
        to: result file to write.
        gpu: name or slug of the GPU, where the outputs have no known name.
        op: operation of outputs that do not name their program.

    Raises:
        UserError: a file cannot be used, or the files are not of one machine and library.
    """
    output.refuse_sources(to, paths)
    _refuse_duplicates(paths)
    named = _parse_op(op)
    runs = [(path, run) for path in paths for run in _read(path)]
    machine = _machine(runs, gpu)
    points, notes = ImportedCases(), [AVERAGE_NOTE]
    for path, run in runs:
        source = f"file {paths.index(path) + 1}, " if len(paths) > 1 else ""
        _add(points, run, source, path, named)
        notes.append(f"{source}{run.program or op}: {_run_text(run)}")
    points.drop_inconsistent()
    if not points.measured and not points.failed:
        reasons = list(points.not_run.values())
        raise UserError(f"{paths[0]}: none of {len(reasons)} rows can be used; the first: {reasons[0]}")
    output.write_file(to, json.dumps(_content(machine, points, notes, paths), allow_nan=False) + "\n")
    return "\n".join([*_summary(machine, points), f"{to}: written"])


def _refuse_duplicates(paths: Sequence[Path]) -> None:
    twice = next((path for path, count in Counter(path.resolve() for path in paths).items() if count > 1), None)
    if twice:
        raise UserError(f"{twice}: given twice; its times would count as two passes, so give it once")


def _parse_op(op: str | None) -> str | None:
    """Parse --op, by our name or the program's."""
    known = {op: op for op in PROGRAMS.values()} | PROGRAMS
    return find(known, op, "operation of nccl-tests") if op else None


def _read(path: Path) -> list[NcclTestsRun]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: over {MAX_BYTES // 2**20} MiB; give the output of nccl-tests alone")
        content = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}); give a file that nccl-tests wrote") from error
    if not content.strip():
        raise UserError(f"{path}: empty; give what nccl-tests printed, or what its -J wrote")
    try:
        start = content.lstrip()
        return (
            nccl_tests_output.read_json(content)
            if start.startswith(("{", "[{", "[\n"))
            else nccl_tests_output.read_log(content)
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _add(points: ImportedCases, run: NcclTestsRun, source: str, path: Path, named: str | None) -> None:
    op = operation_of(run)
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


def _machine(runs: Sequence[tuple[Path, NcclTestsRun]], gpu: str | None) -> result_file.Record:
    """`machine_info` that all runs share, without names of hosts."""
    (first, one), found = runs[0], runs[0][1].gpus[0]
    for path, run in runs:
        for what, left, right in (
            ("GPU", found, run.gpus[0]),
            ("library", f"{one.library} {one.library_version}", f"{run.library} {run.library_version}"),
        ):
            if left != right:
                raise UserError(f"{path}: {what} is {right}, and {left} in {first}; import them into a file each")
    if gpu:
        given = device_name(gpu)
        if recognise_gpu(found) and given != found:
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


def _run_text(run: NcclTestsRun) -> str:
    where = f"{run.ranks} ranks on {run.hosts} host{'s' * (run.hosts > 1)}"
    several = f", one of {run.groups} groups that called at once" if run.groups > 1 else ""
    calls = f"average of {run.iterations} call{'s' * (run.iterations > 1)}"
    return f"{where}{several}, {run.launch}, {calls}{', each waited for' if run.blocking else ''}"


def _content(
    machine: result_file.Record, points: ImportedCases, notes: list[str], paths: Sequence[Path]
) -> result_file.Record:
    return {
        "machine_info": machine,
        "commit_info": {},
        "benchmarks": [result_file.benchmark_entry(one) for one in points.measured.values()],
        "datetime": datetime.now(UTC).isoformat(),
        "version": "",
        "shardbench": result_file.shardbench_block(
            not_run=result_file.reason_rows(points.not_run),
            failed=result_file.reason_rows(points.failed),
            options={"files": len(paths)},
            notes=list(dict.fromkeys(notes)),
        ),
    }


def _summary(machine: result_file.Record, points: ImportedCases) -> list[str]:
    ops = Counter(one.case.op for one in points.measured.values())
    taken = f"{len(points.measured)} cases of {machine['gpu']}: " + ", ".join(f"{n} {op}" for op, n in ops.items())
    refused = [f"not imported: {reason}" for reason in points.not_run.values()]
    return [taken, *refused, *(f"failed: {reason}" for reason in points.failed.values())]
