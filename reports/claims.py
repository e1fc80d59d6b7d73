"""The ledger: every statement that is judged, and `claims`, which judges them by the specs and by result files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reports import claims_page, files, gate, knees, output, ratios, utilisation
from reports.arithmetic.rows import ARITHMETIC, Row
from reports.evidence import Evidence, collect
from reports.experiment import schedules, winners
from reports.files import ResultFile
from reports.finding import Architecture, Finding, Judged, Verdict
from reports.output import Format

SOURCE = "note, decode"
NOTHING = "no file with times over tokens: run suites/bench_token_sweep.py, or import published ones"
NO_STEPS = "no file with steps of whole models: run suites/bench_tp_vs_pp.py on two ranks or more"


@dataclass(frozen=True)
class Claim:
    """One statement.

    Attributes:
        id: slug in options and files.
        statement: what is claimed, in our words.
        source: where the note says so.
        expected: the verdict that the ledger has come to; None where it differs by machine.
        judge: finds what the evidence says; arithmetic needs none.
        kind: of layer that `expected` is on, and a gate that names none.
        missing: what to run where no file has anything to judge it by.
    """

    id: str
    statement: str
    source: str
    expected: Verdict | None
    judge: Callable[[Sequence[Evidence]], Iterable[Finding]]
    kind: Architecture = "dense"
    missing: str = NOTHING


MEASURED = (
    Claim(
        "tokens-125-vs-1000",
        "1000 tokens take as long as 125: within 1.25 times the time.",
        SOURCE,
        "REFUTED",
        lambda evidences: ratios.judge(evidences, 125, 1000),
    ),
    Claim(
        "tokens-1-vs-125",
        "125 tokens take as long as one: within 1.25 times the time.",
        "what is true of the claim above",
        None,
        lambda evidences: ratios.judge(evidences, 1, 125),
    ),
    Claim(
        "knee",
        "The knee, where streaming the weights takes as long as computing, lies between 125 and 1000 tokens.",
        "what the claim above hides",
        None,
        knees.judge_knee,
    ),
    Claim(
        "linear-throughput",
        "Throughput grows in proportion to the batch.",
        SOURCE,
        "HOLDS_IF",
        knees.judge_throughput,
    ),
    Claim(
        "tp-utilisation",
        "Tensor parallelism uses all of the memory bandwidth in decode: one token at 95 % of it or more.",
        SOURCE,
        None,
        utilisation.judge,
    ),
    Claim(
        "pp-one-of-p",
        "A single request under pipeline parallelism uses 1/P of the ranks: no more than 1.05 times that.",
        SOURCE,
        "HOLDS",
        schedules.judge_single,
        "whole",
        NO_STEPS,
    ),
    Claim(
        "microbatch-useless",
        "Sync and async pipelines take the same time for a batch: within 1.25 times of each other.",
        SOURCE,
        None,
        schedules.judge_micro_batches,
        "whole",
        NO_STEPS,
    ),
    Claim(
        "pp-utilisation",
        "Stages of an async pipeline are busy 95 % of the time in decode.",
        SOURCE,
        None,
        schedules.judge_utilisation,
        "whole",
        NO_STEPS,
    ),
    Claim(
        "tp-lower-latency",
        "Tensor parallelism has the lower decode latency, over the same ranks and at the same batch.",
        SOURCE,
        None,
        winners.judge_latency,
        "whole",
        NO_STEPS,
    ),
    Claim(
        "prefill-winner",
        "Pipeline parallelism reads prompts faster, fill and drain included.",
        "note, prefill",
        None,
        winners.judge_prefill,
        "whole",
        NO_STEPS,
    ),
)


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
    judged = judge_all(files.load_all(paths))
    output.emit(
        claims_page.draw_up(judged, every=every, more="" if every else "--all"),
        [record(one) for one in judged],
        format,
        to,
        paths,
    )
    gate.check(wanted, judged)


def record(one: Judged) -> dict[str, Any]:
    """A verdict for a machine."""
    return {"id": one.id, "statement": one.statement, **asdict(one.finding)}
