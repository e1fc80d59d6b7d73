"""All claims, their gates, and the `claims` command that judges them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from reports import output, results
from reports.claims import bandwidth, measured_steps, planned_prefill, planned_steps, report, tokens
from reports.claims.arithmetic import ARITHMETIC_CLAIMS, ArithmeticClaim
from reports.claims.evidence import Architecture, ClaimFinding, Evidence, Finding, collect_evidence, overall_findings
from reports.claims.verdict import VERDICTS, Verdict
from reports.output import Format
from reports.results import ResultFile
from specs.errors import GateError, UserError, find

# `--gate`: verdicts that must be as expected, for use in CI.


@dataclass(frozen=True)
class ClaimGate:
    """Verdict that every overall finding on a claim must have.

    For measured claims, `kind` is the kind of layer that counts.
    """

    id: str
    kind: str
    verdict: Verdict


def parse_gates(texts: Sequence[str], expected: Mapping[str, tuple[Verdict | None, Architecture]]) -> list[ClaimGate]:
    """Parse gates from `ID`, `ID=VERDICT` or `ID/moe=VERDICT`, in comma lists.

    An ID alone expects the ledger's verdict. Without a kind the claim's own kind counts: whole for claims on steps of
    whole models, else dense. Other kinds need a verdict: `ID/whole=VERDICT`.

    Args:
        texts: as typed.
        expected: by claim the ledger's verdict and its kind of layer.

    Raises:
        UserError: an unknown claim, kind or verdict, or the ledger expects none.
    """
    found = []
    named = [part.strip() for whole in texts for part in whole.split(",") if part.strip()]
    if texts and not named:
        raise UserError("--gate: names no claim; write as in --gate tokens-125-vs-1000=REFUTED")
    for text in named:
        name, given, verdict = text.partition("=")
        slug, _, kind = name.partition("/")
        usual, own = find(expected, slug, "claim")
        chosen = verdict.upper().replace("-", "_") if given else usual if kind in ("", own) else None
        if not chosen:
            raise UserError(f"--gate {text}: no verdict is expected everywhere; name one, as in {name}=HOLDS")
        if chosen not in VERDICTS:
            raise UserError(f"--gate {text}: no verdict is called {verdict!r}; known: {', '.join(VERDICTS)}")
        if kind and kind not in report.ARCHITECTURE_ORDER:
            raise UserError(
                f"--gate {text}: no kind of layer is called {kind!r}; known: {', '.join(report.ARCHITECTURE_ORDER)}"
            )
        found.append(ClaimGate(slug, kind or own, chosen))
    return found


def check_gates(gates: Sequence[ClaimGate], judged: Sequence[ClaimFinding]) -> None:
    """Check that every gate has findings, all with the gate's verdict.

    Raises:
        GateError: a gate has no finding, or a finding with another verdict.
    """
    wrong = []
    for gate in gates:
        rows = [row for row in overall_findings(judged, gate.id) if row.architecture in (None, gate.kind)]
        wrong += [
            f"{gate.id}: {row.verdict}, not {gate.verdict}"
            + (f", on {row.gpu}, {row.architecture} layers in {row.dtype}" if row.gpu else "")
            for row in rows
            if row.verdict != gate.verdict
        ]
        if not rows:
            wrong.append(f"{gate.id}: no finding on {gate.kind} layers, so not {gate.verdict}")
    if wrong:
        raise GateError("\n".join(f"gate: {line}" for line in wrong))


DECODE_SOURCE = "note, decode"
NO_SWEEPS = "no file with times over tokens: run suites/bench_token_sweep.py, or import published ones"
NO_STEPS = (
    "no file with steps of whole models, nor of a GPU to plan for: run suites/bench_tp_vs_pp.py on two ranks or more, "
    "or import published times"
)


@dataclass(frozen=True)
class Claim:
    """One claim, with the function that judges it.

    Attributes:
        id: slug in options and files.
        statement: the claim, in our words.
        source: place in the note on TP and PP that the claims come from, or an address.
        expected: the ledger's verdict; None where it differs by machine.
        judge: function from evidence to findings; arithmetic needs no evidence.
        kind: kind of layer of `expected`, and of a gate that names none.
        missing: what to run where no file has evidence.
    """

    id: str
    statement: str
    source: str
    expected: Verdict | None
    judge: Callable[[Sequence[Evidence]], Iterable[Finding]]
    kind: Architecture = "dense"
    missing: str = NO_SWEEPS


Judge = Callable[[Sequence[Evidence]], Iterable[Finding]]


def _measured_or_planned(ran: Judge, planned: Judge) -> Judge:
    """Judge by measured steps of whole models, and by estimated steps.

    Estimates serve GPUs on which no whole model ran.
    """
    return lambda evidences: [*ran(evidences), *planned(evidences)]


TIMED_CLAIMS = (
    Claim(
        "tokens-125-vs-1000",
        "1000 tokens take as long as 125: within 1.25 times the time.",
        DECODE_SOURCE,
        "REFUTED",
        lambda evidences: tokens.judge_token_ratio(evidences, 125, 1000),
    ),
    Claim(
        "tokens-1-vs-125",
        "125 tokens take as long as one: within 1.25 times the time.",
        "what is true of the claim above",
        None,
        lambda evidences: tokens.judge_token_ratio(evidences, 1, 125),
    ),
    Claim(
        "knee",
        "The knee, where streaming the weights takes as long as computing, lies between 125 and 1000 tokens.",
        "what the claim above hides",
        None,
        tokens.judge_knee,
    ),
    Claim(
        "linear-throughput",
        "Throughput grows in proportion to the batch.",
        DECODE_SOURCE,
        "HOLDS_IF",
        tokens.judge_throughput,
    ),
    Claim(
        "tp-utilisation",
        "Tensor parallelism uses all of the memory bandwidth in decode: one token at 95 % of it or more.",
        DECODE_SOURCE,
        None,
        bandwidth.judge_bandwidth,
    ),
    Claim(
        "pp-one-of-p",
        "A single request under pipeline parallelism uses 1/P of the ranks: no more than 1.05 times that.",
        DECODE_SOURCE,
        "HOLDS",
        _measured_or_planned(measured_steps.judge_single_request, planned_steps.judge_single_request),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "microbatch-useless",
        "Sync and async pipelines take the same time for a batch: within 1.25 times of each other.",
        DECODE_SOURCE,
        None,
        _measured_or_planned(measured_steps.judge_micro_batches, planned_steps.judge_micro_batches),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "pp-utilisation",
        "Stages of an async pipeline are busy 95 % of the time in decode.",
        DECODE_SOURCE,
        None,
        _measured_or_planned(measured_steps.judge_utilisation, planned_steps.judge_utilisation),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "tp-lower-latency",
        "Tensor parallelism has the lower decode latency, over the same ranks and at the same batch.",
        DECODE_SOURCE,
        None,
        _measured_or_planned(measured_steps.judge_latency, planned_steps.judge_latency),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "prefill-winner",
        "Pipeline parallelism reads prompts faster, fill and drain included.",
        "note, prefill",
        None,
        _measured_or_planned(measured_steps.judge_prefill, planned_prefill.judge_prefill_winner),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "decode-winner",
        "At a large decode batch async pipeline parallelism gives more tokens a second than tensor parallelism.",
        "note, table of winners",
        None,
        _measured_or_planned(measured_steps.judge_crossover, planned_steps.judge_crossover),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "allreduce-30",
        "All-reduces are up to 30 % of the latency of decode under tensor parallelism.",
        "note, network",
        None,
        _measured_or_planned(measured_steps.judge_all_reduces, planned_steps.judge_all_reduce_share),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "allreduce-38",
        "With NVLink all-reduces can be 38 % of the latency of a 70B model under TP8.",
        "note, network",
        None,
        _measured_or_planned(measured_steps.judge_nvlink, planned_steps.judge_nvlink_share),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "prefill-comm-20-30",
        "Under tensor parallelism 20 to 30 % of prefill is communication.",
        "note, table of winners",
        None,
        _measured_or_planned(measured_steps.judge_prefill_all_reduces, planned_prefill.judge_tp_share),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "prefill-pp-comm-1",
        "Under pipeline parallelism less than 1 % of prefill is communication, the bubble not counted.",
        "note, table of winners",
        None,
        _measured_or_planned(measured_steps.judge_prefill_hops, planned_prefill.judge_pp_share),
        "whole",
        NO_STEPS,
    ),
)


# All claims, and the `claims` command that judges them by the specs and by result files.


def _arithmetic_claim(row: ArithmeticClaim) -> Claim:
    """Return a claim that the specs decide alone.

    The note's arithmetic claims are all on dense layers in bf16.
    """

    def judge(_: Sequence[Evidence]) -> list[Finding]:
        return [replace(row.predicate(), dtype="bf16", architecture="dense")]

    return Claim(row.id, row.statement, row.source, row.expected, judge)


CLAIMS = (*map(_arithmetic_claim, ARITHMETIC_CLAIMS), *TIMED_CLAIMS)
"""All claims; an entry in `TIMED_CLAIMS` or in claims/arithmetic.py adds one."""


def judge_files(loaded: Iterable[ResultFile]) -> list[ClaimFinding]:
    """Judge every claim on these files."""
    return judge_claims(collect_evidence(loaded))


def judge_claims(evidences: Sequence[Evidence]) -> list[ClaimFinding]:
    """Judge every claim: overall findings first, then those on single linears."""
    return [
        ClaimFinding(claim.id, claim.statement, finding)
        for claim in CLAIMS
        for finding in _claim_findings(claim, evidences)
    ]


def _claim_findings(claim: Claim, evidences: Sequence[Evidence]) -> Iterator[Finding]:
    found = list(claim.judge(evidences))
    if not found:
        found = [Finding(verdict="NOT_MEASURED", condition=claim.missing, provenance="")]
    yield from found


def write_claims(
    paths: Sequence[Path],
    gates: Sequence[str],
    format: Format,  # noqa: A002
    to: Path | None,
    *,
    every: bool,
) -> None:
    """Write the verdicts, then check the gates.

    Raises:
        UserError: a file cannot be read, a gate names no claim, or the report cannot be written.
        GateError: a verdict is not the expected one; the report is written all the same.
    """
    wanted = parse_gates(gates, {claim.id: (claim.expected, claim.kind) for claim in CLAIMS})
    loaded = results.load_all(paths)
    evidences = collect_evidence(loaded)
    judged = judge_claims(evidences)
    verdicts = report.verdict_tables(judged, every=every, more="" if every else "--all")
    output.emit(
        [*verdicts, *report.library_tables(loaded), *report.summary_tables(judged)],
        [finding_record(one) for one in judged],
        format,
        to,
        paths,
    )
    check_gates(wanted, judged)


FINDING_FIELDS = tuple(field.name for field in fields(Finding))


def finding_record(one: ClaimFinding) -> dict[str, Any]:
    """Return a finding and its claim as a JSON record."""
    return {"id": one.id, "statement": one.statement, **{name: getattr(one.finding, name) for name in FINDING_FIELDS}}
