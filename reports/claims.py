"""The ledger: every statement that is judged, and `claims`, which judges them by the specs and by result files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from reports import claims_page, files, gate, libraries, output, summary
from reports.arithmetic.rows import ARITHMETIC, Row
from reports.evidence import Evidence, collect
from reports.files import ResultFile
from reports.finding import Finding, Judged
from reports.measured import MEASURED, Claim
from reports.output import Format


def _arithmetic(row: Row) -> Claim:
    """A claim that the specs decide alone; those of the note are all on dense layers in bf16."""

    def judge(_: Sequence[Evidence]) -> list[Finding]:
        return [replace(row.predicate(), dtype="bf16", architecture="dense")]

    return Claim(row.id, row.statement, row.source, row.expected, judge)


CLAIMS = (*map(_arithmetic, ARITHMETIC), *MEASURED)
"""All of them; a line here or in reports/arithmetic/rows.py adds one."""


def judge_all(loaded: Iterable[ResultFile]) -> list[Judged]:
    """Every claim with each of its findings on these files."""
    return judge(collect(loaded))


def judge(evidences: Sequence[Evidence]) -> list[Judged]:
    """Every claim with each of its findings: overall ones first, those on single linears under them."""
    return [Judged(claim.id, claim.statement, finding) for claim in CLAIMS for finding in _findings(claim, evidences)]


def _findings(claim: Claim, evidences: Sequence[Evidence]) -> Iterator[Finding]:
    found = list(claim.judge(evidences))
    if not found:
        found = [Finding(verdict="NOT_MEASURED", condition=claim.missing, provenance="")]
    yield from found


def claims(paths: Sequence[Path], gates: Sequence[str], format: Format, to: Path | None, *, every: bool) -> None:  # noqa: A002
    """Write the verdicts.

    Raises:
        UserError: a file cannot be read, a gate names no claim, or the report cannot be written.
        GateError: a verdict is not the expected one; the report is written all the same.
    """
    wanted = gate.parse(gates, {claim.id: (claim.expected, claim.kind) for claim in CLAIMS})
    loaded = files.load_all(paths)
    evidences = collect(loaded)
    judged = judge(evidences)
    verdicts = claims_page.draw_up(judged, every=every, more="" if every else "--all")
    output.emit(
        [*verdicts, *libraries.draw_up(loaded), *summary.draw_up(judged)],
        [record(one) for one in judged],
        format,
        to,
        paths,
    )
    gate.check(wanted, judged)


def record(one: Judged) -> dict[str, Any]:
    """A verdict for a machine."""
    return {"id": one.id, "statement": one.statement, **asdict(one.finding)}
