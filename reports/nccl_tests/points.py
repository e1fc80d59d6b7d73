"""Rows as cases: what passes the checks, what was wrong, and what cannot be used.

A case that is printed again, by -N or in another file of the same machine, is another pass of it.
"""

from dataclasses import dataclass, field, replace

from reports.nccl_tests import check
from reports.nccl_tests.formats import DTYPES, PROGRAMS
from reports.nccl_tests.run import Row, Run
from specs import traffic
from specs.measurement import Case, Measurement

SUITE = "nccl-tests"
CLOCK = "nccl-tests"
UNCHECKED = "result unchecked"


@dataclass
class Points:
    """What an import has gathered.

    Attributes:
        measured: by case name, one pass for each time that it was printed.
        failed, not_run: by case name the reason.
    """

    measured: dict[str, Measurement] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)

    def add(self, run: Run, op: str, source: str) -> None:
        """Take a run's rows; `source` says which file, for reasons, where there are several."""
        for place, reason in run.unread.items():
            self.not_run[f"{SUITE}::{op}[{source}{place}]"] = f"{source}{place}: {reason}"
        untrue = {row: check.contradiction(op, run.ranks, row) for row in run.rows}
        witness = next((row.place for row, reason in untrue.items() if reason and row.size), None)
        for row, contradiction in untrue.items():
            case = _case(run, op, row)
            if contradiction:
                self.not_run[case.name] = f"{source}{row.place}: {contradiction}"
            elif witness and not check.telling(row):
                few = f"too few digits to be checked, and {witness} of the same run contradicts itself"
                self.not_run[case.name] = f"{source}{row.place}: {few}"
            elif wrong := _wrong(run, row):
                self.failed[case.name] = f"{source}{row.place}: {wrong}"
            else:
                self._measured(_measurement(run, case, row))

    def settle(self) -> None:
        """Leave out what was right once and wrong another time."""
        for name in self.failed | self.not_run:
            self.measured.pop(name, None)
        for name in self.failed:
            self.not_run.pop(name, None)

    def _measured(self, one: Measurement) -> None:
        before = self.measured.get(one.case.name)
        self.measured[one.case.name] = replace(before, seconds=before.seconds + one.seconds) if before else one


def operation(run: Run) -> str | None:
    """Ours of the run's program; None for one that we have no counterpart of."""
    return PROGRAMS.get((run.program or "").rpartition("/")[2].removesuffix("_mpi"))


def _wrong(run: Run, row: Row) -> str | None:
    """What the row's check found. Of an old version's largest error only the run's end says if it is too large."""
    if row.wrong in ("N/A", "0"):
        return None
    if run.errors:
        return f"an error of {row.wrong} in a run with {run.out_of_bounds} out of bounds" if run.out_of_bounds else None
    return f"{row.wrong} elements were wrong"


def _case(run: Run, op: str, row: Row) -> Case:
    dtype = DTYPES.get(row.type, row.type)
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
        cache="unknown",  # buffers move on from call to call, as far as there is room
        launch=run.launch,
        ranks=run.ranks,
        message_bytes=row.size,
    )


def _measurement(run: Run, case: Case, row: Row) -> Measurement:
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
