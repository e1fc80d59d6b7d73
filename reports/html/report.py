"""Build the report: answers to both questions, and the blocks of all sections."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reports import machine, result_tables
from reports.claims import registry, report
from reports.claims.evidence import (
    Architecture,
    ClaimFinding,
    Evidence,
    Finding,
    collect_evidence,
    overall_findings,
    with_token_series,
)
from reports.communication import report as communication_report
from reports.communication.report import CommunicationSection
from reports.compare import generations
from reports.compare.generations import Generations
from reports.formatting import ratio_range
from reports.ledger import report as ledger_report
from reports.output import Block, Facts, Table
from reports.plan import report as plans
from reports.plan.answer import batches_near_crossover, better_than_both, is_surely_faster
from reports.plan.planner import Plan
from reports.plan.report import NamedPlan
from reports.plan.report import PlanSection as Plans
from reports.results import ResultFile
from reports.tp_vs_pp import report as tp_vs_pp_report
from reports.tp_vs_pp.report import ExperimentSection as Experiments

TOKENS_QUESTION = "Do 125 tokens take as long as 1000?"
MAIN_DTYPE = "bf16"
"""Number format of the headline where files hold several."""
CLOSE_RATIO = 2
"""Time ratio below which experts come close to the claim."""


@dataclass(frozen=True)
class Answer:
    """A headline of one sentence, and one sentence for each qualification."""

    headline: str
    details: Sequence[str]


def tokens_answer(judged: Sequence[ClaimFinding]) -> Answer:
    """Answer from the verdicts on dense layers.

    Details: ratios, whole layers, 125 tokens against one, experts, other number formats.
    """
    found = {dtype: _overall(judged, "tokens-125-vs-1000", "dense", dtype) for dtype in _dtypes(judged)}
    if not found:
        text = "Not measured: no file here has times of 125 and of 1000 tokens through the linears of a dense layer."
        whole = _sentences(_whole_layer_text(_overall(judged, "tokens-125-vs-1000", "whole", MAIN_DTYPE)))
        experts = _sentences(_experts(_overall(judged, "tokens-125-vs-1000", "moe", MAIN_DTYPE)))
        return Answer(text, [*whole, *experts, "Run `pytest suites/`, or `python -m reports import aiconfigurator`."])
    main, *others = found
    details = [_ratio_sentence(found[main])]
    details += _sentences(_whole_layer_text(_overall(judged, "tokens-125-vs-1000", "whole", main)))
    details += _sentences(_plateau(_overall(judged, "tokens-1-vs-125", "dense", main)))
    details += _sentences(_experts(_overall(judged, "tokens-125-vs-1000", "moe", main)))
    details += [_headline(found[dtype], dtype) for dtype in others]
    return Answer(_headline(found[main], main), details)


def _overall(judged: Sequence[ClaimFinding], slug: str, kind: Architecture, dtype: str) -> list[Finding]:
    return [row for row in overall_findings(judged, slug) if row.architecture == kind and row.dtype == dtype]


def _dtypes(judged: Sequence[ClaimFinding]) -> list[str]:
    """Number formats of the findings on dense layers, `MAIN_DTYPE` first."""
    rows = overall_findings(judged, "tokens-125-vs-1000")
    dtypes = {row.dtype for row in rows if row.dtype and row.architecture == "dense"}
    return sorted(dtypes, key=lambda dtype: (dtype != MAIN_DTYPE, dtype))


def _headline(rows: Sequence[Finding], dtype: str) -> str:
    refuted = [row for row in rows if row.verdict == "REFUTED"]
    holding = [row for row in rows if row.verdict == "HOLDS"]
    open_ones = [row for row in rows if row not in refuted and row not in holding]
    where = "on every system here" if not (holding or open_ones) else f"on {_gpu_names(refuted)}"
    parts = []
    if refuted:
        times = ratio_range(min(row.low or 0 for row in refuted), max(row.high or 0 for row in refuted))
        parts.append(
            f"No, refuted {where}: 1000 tokens take {times} times as long as 125 through a dense {dtype} linear"
        )
    if holding:
        parts.append(f"{'yes' if parts else 'Yes'} on {_gpu_names(holding)}, in {dtype}")
    if open_ones:
        parts.append(f"{'undecided' if parts else 'Undecided'} on {_gpu_names(open_ones)} in {dtype}")
    return "; ".join(parts) + "."


def _ratio_sentence(rows: Sequence[Finding]) -> str:
    """Sentence with the ratio and its range on each GPU, the smallest first."""
    known = sorted((row for row in rows if row.value), key=lambda row: row.value or 0)
    said = ", ".join(f"{row.label} {row.value:.1f} ({_range(row)})" for row in known)
    return f"t(1000) / t(125), the middle over the linears and its range: {said}." if said else _open_reasons(rows)


def _range(row: Finding) -> str:
    return ratio_range(row.low, row.high) if row.low and row.high else "no interval"


def _whole_layer_text(rows: Sequence[Finding]) -> str:
    """Text with the ratio and its range of whole layers, attention included."""
    said = [f"{row.value:.1f} ({_range(row)}) times as long on {row.label}" for row in rows if row.value]
    return f"1000 tokens take a whole layer, with attention, {', '.join(said)}" if said else ""


def _exact_range(row: Finding) -> str:
    """Range with two decimals, as the limit of 1.25 has."""
    return f"{row.low:.2f}–{row.high:.2f}" if row.low and row.high else "no interval"


def _plateau(rows: Sequence[Finding]) -> str:
    """Text on where 125 tokens take as long as one."""
    holding = [row for row in rows if row.verdict == "HOLDS"]
    partly = [row for row in rows if row.verdict == "HOLDS_IF"]
    refuted = [row for row in rows if row.verdict == "REFUTED"]
    said = []
    if holding:
        high = max(row.high or 0 for row in holding)
        said.append(
            f"what holds is 1 ≈ 125: 125 tokens take at most {high:.2f} times as long as one on {_gpu_names(holding)}"
        )
    elif partly or refuted:
        said.append("as for 125 tokens against one, within 1.25")
    said += [f"in part on {row.label} ({_exact_range(row)})" for row in partly]
    said += [f"not on {row.label} ({_exact_range(row)})" for row in refuted]
    return "; ".join(said)


def _experts(rows: Sequence[Finding]) -> str:
    """Text on how close fine-grained experts come, and where they meet the limit."""
    known = [row for row in rows if row.value]
    if not known:
        return ""
    middle = sorted(row.value or 0 for row in known)
    close = "fine-grained experts come close" if middle[-1] < CLOSE_RATIO else "fine-grained experts do not come close"
    said = [f"{close}: 1000 tokens take {ratio_range(middle[0], middle[-1])} times as long as 125 in the middle"]
    partly = [f"{row.label} {row.condition.split(' stay')[0]}" for row in known if row.verdict == "HOLDS_IF"]
    for verdict, words in (("HOLDS", "within 1.25 on"), ("REFUTED", "beyond 1.25 throughout on")):
        if rows_of := [row for row in known if row.verdict == verdict]:
            said.append(f"{words} {_gpu_names(rows_of)}")
    if partly:
        said.append(f"within 1.25 under conditions only on {', '.join(partly)} cases")
    return "; ".join(said)


def _sentences(text: str) -> list[str]:
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def _gpu_names(rows: Sequence[Finding]) -> str:
    return ", ".join(dict.fromkeys(str(row.label or row.gpu) for row in rows))


def _open_reasons(rows: Sequence[Finding]) -> str:
    return "; ".join(dict.fromkeys(f"{row.label}: {row.condition}" for row in rows)) + "."


# Project's question, answered for the measured machine and for each GPU with a plan.

TP_VS_PP_QUESTION = "Tensor parallel or pipeline parallel?"
NOT_MEASURED = (
    "Not measured: no file here has steps of a whole model, or the parts of one on a known GPU.",
    "Run `pytest suites/bench_tp_vs_pp.py`, or `python -m reports import aiconfigurator`.",
)


def tp_vs_pp_answer(ran: Experiments, plans: Plans) -> Answer:
    """Answer with all winners in one line, then a sentence per experiment and plan."""
    said = [*_measured_winners(ran), *_planned_winners(plans.planned)]
    details = [*ran.sentences(), *plans.sentences()]
    if said:
        text = "; ".join(said)
        return Answer(f"{text[0].upper()}{text[1:]}.", details)
    return Answer(details[0], details[1:]) if details else Answer(NOT_MEASURED[0], NOT_MEASURED[1:])


def _measured_winners(ran: Experiments) -> Iterator[str]:
    """Yield the winners by load in each machine's first experiment."""
    for one in ran.by_file:
        if won := tp_vs_pp_report.winner_texts(one.experiments[0]):
            yield f"measured on {one.name}, {'; '.join(won)}"


def _planned_winners(planned: Sequence[NamedPlan]) -> Iterator[str]:
    """Yield the crossover batches of all plans, and the GPUs without a crossover."""
    by: dict[str, list[NamedPlan]] = {}
    for one in planned:
        if one.plan.crossover:
            by.setdefault(one.plan.crossover.verdict, []).append(one)
    if not by:
        return
    gpus = planned[0].plan.query.gpus
    words = {
        "crossover": f"TP {gpus} is faster at small batches and async PP {gpus} at large ones, for good from",
        "tp": f"TP {gpus} is faster at every batch on",
        "pp": f"async PP {gpus} gives more tokens a second at every batch on",
        "ambiguous": "it is open on",
    }
    found = [
        f"{text} {_crossover_range(by[verdict]) if verdict == 'crossover' else _plan_names(by[verdict])}"
        for verdict, text in words.items()
        if verdict in by
    ]
    yield f"planned over {gpus} GPUs, {'; '.join(found)}"


def _crossover_range(planned: Sequence[NamedPlan]) -> str:
    """Text with the smallest and the largest crossover batch, and their GPUs.

    Example: `about 88 (l40s) to 1496 (h100_sxm) …; replicas of … beat both on 6 of 6 …`.
    """
    middles = sorted((one.plan.crossover.batch or 0, one.name) for one in planned if one.plan.crossover)
    ends = dict.fromkeys((middles[0], middles[-1]))
    from_to = f"about {' to '.join(f'{batch} ({name})' for batch, name in ends)} in the middle of what is in doubt"
    return f"{from_to}{_third_split_note([one.plan for one in planned])}"


def _third_split_note(plans: Sequence[Plan]) -> str:
    """Note on how many plans have a third split that is surely faster than both.

    The comparison is at the asked batch nearest to the crossover.
    """
    there = [found for one in plans if (found := better_than_both(one, batches_near_crossover(one)[0]))]
    ahead = [best.deployment for best, *others in there if is_surely_faster(best, others)]
    if not ahead:
        return ""
    what = "replicas of a smaller split beat" if all(one.replicas > 1 for one in ahead) else "other splits beat"
    return f"; {what} both on {len(ahead)} of {len(plans)} at the asked batch nearest to that"


def _plan_names(planned: Sequence[NamedPlan]) -> str:
    return ", ".join(one.name for one in planned)


# Report as blocks, for the page and the terminal.

IMPORT_HINT = (
    "`python -m reports import aiconfigurator --system h200_sxm -o h200.json`, after `pip install '.[silicon]'`"
)


@dataclass(frozen=True)
class Report:
    """Judged content of the files.

    Attributes:
        files: result files that were read.
        evidences: times over tokens in the files.
        judged: findings on every claim.
        answer: answer to the project's question.
        tokens: answer to whether 125 tokens take as long as 1000.
        experiment: TP against PP on whole models.
        plans: TP against PP over 8 GPUs, estimated from parts.
        generations: GPUs against the oldest; None unless two share a linear.
        layers: ledgers of whole layers.
        communication: measured and published operations between ranks.
        missing: gaps of the report, and how to fill them.
    """

    files: Sequence[ResultFile]
    evidences: Sequence[Evidence]
    judged: Sequence[ClaimFinding]
    answer: Answer
    tokens: Answer
    experiment: tp_vs_pp_report.ExperimentSection
    plans: plans.PlanSection
    generations: Generations | None
    layers: ledger_report.LedgerSection
    communication: CommunicationSection
    missing: Sequence[str]

    def blocks(self) -> list[Block]:
        """All blocks of the report.

        Order: answers, TP against PP, plans, verdicts, summary, generations, layers, communication, provenance.
        """
        blocks = [*self.answers(), *self.experiment.blocks(), *self.plans.blocks()]
        blocks += [*report.verdict_tables(self.judged, more="`python -m reports claims --all`"), *self.summary()]
        if self.generations:
            blocks += generations.generation_blocks(self.generations)
        return [*blocks, *self.layers.blocks(), *self.communication.blocks(), *self.provenance()]

    def answers(self) -> list[Block]:
        """Answers to both questions, the project's question first."""
        parallel = [self.answer.headline, *self.answer.details, *self.missing]
        times = [self.tokens.headline, *self.tokens.details]
        return [
            Facts(title=TP_VS_PP_QUESTION, rows=tuple(("", line) for line in parallel), level=1),
            Facts(title=TOKENS_QUESTION, rows=tuple(("", line) for line in times), level=1),
        ]

    def verdicts(self, *, every: bool = False) -> list[Block]:
        """A table for each measured claim, and a single table for arithmetic."""
        return report.verdict_tables(self.judged, every=every)

    def summary(self) -> list[Table]:
        """Tables of libraries and fabric, and the two summary tables of the claims' note."""
        return [*report.library_tables(self.files), *report.summary_tables(self.judged)]

    def provenance(self) -> list[Block]:
        """Machine, source, date, ceilings and missing cases of each file."""
        found: list[Block] = []
        for file in self.files:
            found += [
                result_tables.header_facts(file, machine.measured_ceilings(file), machine.known_gpu(file)),
                *result_tables.footer_facts(file),
            ]
        return found

    def data(self) -> dict[str, Any]:
        """Report as JSON data."""
        return {
            "question": TP_VS_PP_QUESTION,
            "answer": self.answer.headline,
            "details": list(self.answer.details),
            "tokens": {
                "question": TOKENS_QUESTION,
                "answer": self.tokens.headline,
                "details": list(self.tokens.details),
            },
            "missing": list(self.missing),
            "claims": [registry.finding_record(one) for one in self.judged],
            "experiment": self.experiment.data(),
            "plans": self.plans.data(),
            "layers": self.layers.data(),
            "communication": self.communication.data(),
            "files": [str(file.path) for file in self.files],
        }


def build_report(files: Sequence[ResultFile]) -> Report:
    """Judge the files and build all sections."""
    collected = collect_evidence(files)
    evidences, judged = with_token_series(collected), registry.judge_claims(collected)
    missing = []
    if not any(file.published for file in files):
        missing.append(f"No published GPU stands beside this: {IMPORT_HINT}.")
    if all(file.published for file in files):
        missing.append("No machine of your own is among the files: `pytest suites/ --benchmark-json=out.json`.")
    side_by_side, experiment, planned = (
        generations.compare_generations(files),
        tp_vs_pp_report.build_section(files),
        plans.build_section(files),
    )
    layers, communication = ledger_report.build_section(files), communication_report.build_section(files)
    return Report(
        files=files,
        evidences=evidences,
        judged=judged,
        answer=tp_vs_pp_answer(experiment, planned),
        tokens=tokens_answer(judged),
        experiment=experiment,
        plans=planned,
        generations=side_by_side,
        layers=layers,
        communication=communication,
        missing=missing,
    )
