"""Report section on measured TP against PP: sentences, tables, JSON records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from reports import formatting
from reports.deployment_names import (
    deployment_name,
    describe_loads,
    is_truncated,
    join_with_and,
    load_phrase,
    model_description,
)
from reports.formatting import DASH
from reports.machine import distinct_gpu_name
from reports.output import Block, Column, Facts, Table
from reports.result_tables import NOTES_COLUMN, shared_warnings
from reports.results import ResultFile
from reports.roofline import CaseMetrics
from reports.tp_vs_pp import validation
from reports.tp_vs_pp.compare import (
    Experiment,
    Load,
    TpPpComparison,
    collect_experiments,
    compare_tp_pp,
    fastest_deployment,
    find_crossover,
    oversubscription,
    tied_fastest,
)
from reports.tp_vs_pp.validation import PlanValidation, validate_plan
from specs import measurement as specs_measurement
from specs.measurement import Measurement
from specs.parallel import Deployment
from specs.roofline import Ceilings

# One sentence for each experiment: winners, crossover, best throughput.

NEEDS_PASSES = "a single pass gives no interval, so no winner is named: measure with --passes 2 or more"
NOT_BOTH_RAN = "TP and PP have not both run over all ranks"


def experiment_sentence(name: str, experiment: Experiment) -> str:
    """State who is faster at which loads, the crossover and the best throughput.

    A winner is named only where the interval of the ratio excludes 1.

    Args:
        name: name of the machine.
        experiment: steps that ran on the machine.
    """
    setting = experiment.setting
    context = f", context {setting.context}" if setting.context else ""
    ran = f"{model_description(setting)}, {setting.dtype} by {setting.implementation}{context}"
    found = "; ".join(_finding_clauses(experiment))
    return f"On {name} ({setting.ranks} ranks over {setting.backend}), {_phase_phrase(experiment)} {ran}: {found}."


def _phase_phrase(experiment: Experiment) -> str:
    return "in decode of" if experiment.setting.decode else "in one-shot prefill of"


def winner_texts(experiment: Experiment) -> list[str]:
    """Winners at their loads, without ratios; empty where no winner can be named."""
    return [] if _why_no_winner(experiment) else [text for text, _ in _wins_by_side(compare_tp_pp(experiment))]


def _finding_clauses(experiment: Experiment) -> Iterator[str]:
    if why := _why_no_winner(experiment):
        yield why
        return
    found = compare_tp_pp(experiment)
    yield from _winner_clauses(found) if found else (NOT_BOTH_RAN,)
    if found and experiment.setting.decode:
        yield from _crossover_clause(found)
    yield from _best_throughput_clause(experiment)


def _why_no_winner(experiment: Experiment) -> str:
    """Reason why no winner can be named; empty where a winner can be."""
    if all(one.interval is None for runs in experiment.loads.values() for one in runs.values()):
        return NEEDS_PASSES
    if crowded := oversubscription(experiment.file, experiment.setting.ranks):
        return f"{crowded} and take turns, so no winner is named: what waits and for whom is in the ledgers"
    return ""


def _winner_clauses(found: Sequence[TpPpComparison]) -> Iterator[str]:
    for text, won in _wins_by_side(found):
        yield f"{text} ({_speedups_text(won)})"
    loads = [one.load for one in found]
    if even := [one.load for one in found if one.winner is None]:
        yield f"the two cannot be told apart {describe_loads(even, loads, 'any')}"


def _wins_by_side(found: Sequence[TpPpComparison]) -> Iterator[tuple[str, list[TpPpComparison]]]:
    """Yield `TP 2 is faster than PP 2 up to a batch of 64`, and the comparisons won."""
    if not found:
        return
    loads = [one.load for one in found]
    names = {"tp": deployment_name(found[0].tp), "pp": f"PP {found[0].pp.pp}"}
    for who, other in (("tp", "pp"), ("pp", "tp")):
        if won := [one for one in found if one.winner == who]:
            yield f"{names[who]} is faster than {names[other]} {describe_loads([one.load for one in won], loads)}", won


def _speedups_text(won: Sequence[TpPpComparison]) -> str:
    """Speedups of a winner: `1.80 times at 1 and 1.20 times at 64`.

    For PP the text also names the winning deployment.
    """
    ends = won if len(won) == 1 else (won[0], won[-1])
    took = [deployment_name(one.pp) if one.winner == "pp" else "" for one in ends]
    alike = len(set(took)) == 1
    said = [f"{_speedup(one):.2f} times{f' {load_phrase(one.load)}' if len(ends) > 1 else ''}" for one in ends]
    if not alike:
        said = [f"{text} by {by}" for text, by in zip(said, took, strict=True)]
    return " and ".join(said) + (f", by {took[0]}" if alike and took[0] else "")


def _speedup(one: TpPpComparison) -> float:
    """Ratio of the loser's step time to the winner's."""
    return one.ratio.value if one.winner == "tp" else 1 / one.ratio.value


def _crossover_clause(found: Sequence[TpPpComparison]) -> Iterator[str]:
    crossing = find_crossover(found)
    if crossing.after and crossing.by:
        yield f"so PP overtakes at a batch between {crossing.after} and {crossing.by}"


def _best_throughput_clause(experiment: Experiment) -> Iterator[str]:
    """Yield the best throughput, its load and its deployments, tied ones included.

    Yield nothing where no deployment is significantly slower. Comparing all deployments at once is stricter than
    comparing two sides. A deployment that lost a comparison to one named here is left out.
    """
    rates = {
        load: load.prompt * load.batch / runs[fastest_deployment(runs)].median
        for load, runs in experiment.loads.items()
    }
    load = max(rates, key=lambda one: rates[one])
    first = _without_losers(
        tied_fastest(experiment.loads[load]), [one for one in compare_tp_pp(experiment) if one.load == load]
    )
    if 0 < len(first) < len(experiment.loads[load]):
        tied = ", which cannot be told apart" if len(first) > 1 else ""
        rate = formatting.three_digits(rates[load])
        yield (
            f"the most tokens a second are {rate} {load_phrase(load)}, by "
            f"{join_with_and([*map(deployment_name, first)])}{tied}"
        )


def _without_losers(first: Sequence[Deployment], found: Sequence[TpPpComparison]) -> list[Deployment]:
    """Leaders without the side that lost to a leader: TP, or PP with all schedules."""
    kept = list(first)
    for duel in found:
        winner = duel.tp if duel.winner == "tp" else duel.pp
        loser = duel.pp if duel.winner == "tp" else duel.tp
        if duel.winner and winner in kept:
            kept = [one for one in kept if (one.tp, one.pp, one.replicas) != (loser.tp, loser.pp, loser.replicas)]
    return kept


ITEM_TITLES = {"linears": "lin-\nears", "attention": "attn", "all-reduce": "all-\nreduce"}
"""Narrow column titles of ledger items: eight items share a row."""
PREFILL_TITLES = {"idle": "fill,\ndrain"}
NOTES = (
    "shares are means over ranks and passes, in percent; linears hold the LM head and sampling, norms the embedding",
    "all-reduce, hop: moving what all have come for; skew: waiting for the last rank to come; host: in between",
    "best: at 95 % nothing else at that load is as fast; tied: not told from the fastest, all held against it at once",
)
DECODE_NOTES = (
    "idle: waiting for another stage, the bubble",
    "the loop is closed: at one batch the shorter step has both the lower latency and more tokens a second",
)
PREFILL_NOTES = ("fill, drain: what a stage waits for before its first micro-batch, after its last, and in between",)
OVERSUBSCRIBED_NOTE = "{} and take turns: what would run at once does not, so these steps say nothing of TP against PP"
TRUNCATED_NOTE = "the model is cut down and a hop is not: beside a step it looks longer than in the whole model"


@dataclass(frozen=True)
class DeploymentRow:
    """One deployment at one load; `mark` is best, tied or empty."""

    load: Load
    deployment: Deployment
    figures: CaseMetrics
    mark: str

    @property
    def measurement(self) -> Measurement:
        """Measurement of the step."""
        return self.figures.measurement

    @property
    def tokens_per_second(self) -> float:
        """Throughput of the whole batch in tokens/s."""
        return self.load.prompt * self.load.batch / self.measurement.median

    @cached_property
    def ledger(self) -> Mapping[str, float]:
        """Share of the step by ledger item; empty where no ledger was recorded."""
        return specs_measurement.mean_ledger(self.measurement.ledgers) if self.measurement.ledgers else {}


def deployment_rows(experiment: Experiment) -> list[list[DeploymentRow]]:
    """Rows of all deployments, a list for each load."""
    found = []
    for load, runs in experiment.loads.items():
        first = tied_fastest(runs)
        marks = dict.fromkeys(first, "tied" if len(first) > 1 else "best")
        bare = {one: CaseMetrics(of, Ceilings(None, {}), None) for one, of in runs.items()}
        found.append([DeploymentRow(load, one, of, marks.get(one, "")) for one, of in bare.items()])
    return found


def steps_table(experiment: Experiment) -> Table:
    """Table of step time, throughput and shares of step time in percent."""
    groups, setting = deployment_rows(experiment), experiment.setting
    every = [row for group in groups for row in group]
    everywhere = shared_warnings([row.figures for row in every])
    context = f"context {setting.context}" if setting.context else ""
    shared = (
        model_description(setting),
        setting.dtype,
        setting.implementation,
        setting.backend,
        f"{setting.ranks} ranks",
        context,
    )
    columns = [
        *_label_columns(experiment),
        *_figure_columns(experiment),
        (NOTES_COLUMN, lambda row: _notes_cell(row, everywhere)),
    ]
    table = Table(
        title="decode steps" if setting.decode else "prefill steps",
        columns=tuple(column for column, _ in columns),
        groups=tuple(tuple(tuple(cell(row) for _, cell in columns) for row in group) for group in groups),
        caption=" · ".join(filter(None, [*shared, *everywhere])),
        notes=(*_experiment_notes(experiment), *NOTES, *(DECODE_NOTES if setting.decode else PREFILL_NOTES)),
    )
    return table.without_empty(DASH)


Cell = Callable[[DeploymentRow], str]


def _label_columns(experiment: Experiment) -> list[tuple[Column, Cell]]:
    prompt: list[tuple[Column, Cell]] = [(Column("prompt"), lambda row: f"{row.load.prompt}")]
    return [
        *(prompt if not experiment.setting.decode else ()),
        (Column("batch"), lambda row: f"{row.load.batch}"),
        (Column("deployment", number=False), lambda row: str(row.deployment)),
    ]


def _figure_columns(experiment: Experiment) -> list[tuple[Column, Cell]]:
    every = [one for runs in experiment.loads.values() for one in runs.values()]
    time = formatting.choose_scale(formatting.SECONDS, [one.median for one in every])
    titles = ITEM_TITLES | ({} if experiment.setting.decode else PREFILL_TITLES)
    return [
        (Column(f"step\n{time.symbol}"), lambda row: time(row.measurement.median)),
        (Column("±\n95%"), lambda row: formatting.interval_width(row.figures.half_width)),
        (Column("tokens/s"), lambda row: formatting.three_digits(row.tokens_per_second)),
        (Column("best", number=False), lambda row: row.mark),
        *((Column(titles.get(item, item)), _share_cell(item)) for item in specs_measurement.LEDGER_ITEMS),
    ]


def _share_cell(item: str) -> Cell:
    return lambda row: f"{100 * row.ledger[item]:.1f}" if row.ledger.get(item) else DASH


def _notes_cell(row: DeploymentRow, everywhere: list[str]) -> str:
    return ", ".join(word for word in row.figures.warnings() if word not in everywhere)


def _experiment_notes(experiment: Experiment) -> list[str]:
    """Notes on oversubscribed ranks and a truncated model."""
    crowded = oversubscription(experiment.file, experiment.setting.ranks)
    return [
        *([OVERSUBSCRIBED_NOTE.format(crowded)] if crowded else []),
        *([TRUNCATED_NOTE] if is_truncated(experiment.setting) else []),
    ]


# JSON records of an experiment: SI units, medians, None where there is no value.


def experiment_record(name: str, experiment: Experiment) -> dict[str, Any]:
    """JSON record: setting, answer, comparisons, runs with ledgers."""
    found = compare_tp_pp(experiment)
    return {
        "file": str(experiment.file.path),
        **experiment.setting._asdict(),
        "answer": experiment_sentence(name, experiment),
        "crossover": asdict(find_crossover(found)) if found and experiment.setting.decode else None,
        "duels": [_comparison_record(one) for one in found],
        "runs": [_run_record(row) for group in deployment_rows(experiment) for row in group],
    }


def _comparison_record(one: TpPpComparison) -> dict[str, Any]:
    low, high = one.ratio.interval or (None, None)
    return {
        **one.load._asdict(),
        "tp": str(one.tp),
        "pp": str(one.pp),
        "pp_over_tp": one.ratio.value,
        "low": low,
        "high": high,
        "winner": one.winner,
    }


def _run_record(row: DeploymentRow) -> dict[str, Any]:
    low, high = row.measurement.interval or (None, None)
    ledgers = row.measurement.ledgers
    return {
        "case": row.measurement.case.name,
        "deployment": str(row.deployment),
        **asdict(row.deployment),
        **row.load._asdict(),
        "seconds": row.measurement.median,
        "low": low,
        "high": high,
        "passes": len(row.measurement.seconds),
        "tokens_per_second": row.tokens_per_second,
        "mark": row.mark or None,
        "ledger": dict(row.ledger) or None,
        "stages": specs_measurement.ledger_by_stage(ledgers) if ledgers else None,
        "warnings": row.figures.warnings(),
    }


# Report section: sentences and tables of each machine's experiments.

TITLE = "TP against PP"


@dataclass(frozen=True)
class FileExperiments:
    """Experiments of one file; `name` distinguishes its machine within a report."""

    name: str
    file: ResultFile
    experiments: Sequence[Experiment]

    @cached_property
    def plan_checks(self) -> Sequence[PlanValidation | None]:
        """Validation of each experiment's plan; None where it cannot be planned."""
        return [validate_plan(one) for one in self.experiments]

    def sentences(self) -> list[str]:
        """Answer of each experiment, then the error of each plan."""
        return [experiment_sentence(self.name, one) for one in self.experiments] + [
            validation.validation_sentence(one) for one in self.plan_checks if one
        ]

    def tables(self) -> list[Table]:
        """Step table of each experiment, then planned against run steps."""
        return [
            *(steps_table(one) for one in self.experiments),
            *(validation.validation_table(one) for one in self.plan_checks if one),
        ]


@dataclass(frozen=True)
class ExperimentSection:
    """Experiments of all files."""

    by_file: Sequence[FileExperiments]

    def __bool__(self) -> bool:
        return bool(self.by_file)

    def sentences(self) -> list[str]:
        """Sentences of all files, in order."""
        return [text for one in self.by_file for text in one.sentences()]

    def blocks(self) -> list[Block]:
        """Blocks for the terminal; empty where no file holds an experiment."""
        if not self:
            return []
        blocks: list[Block] = [Facts(title=TITLE, rows=tuple(("", text) for text in self.sentences()), level=1)]
        for one in self.by_file:
            if len(self.by_file) > 1:
                blocks.append(Facts(title=f"measured by {one.name}", rows=(("file", str(one.file.path)),)))
            blocks += one.tables()
        return blocks

    def data(self) -> list[dict[str, Any]]:
        """JSON records of all experiments with their planned runs."""
        return [
            {**experiment_record(one.name, experiment), "planned": validation.validation_record(found)}
            for one in self.by_file
            for experiment, found in zip(one.experiments, one.plan_checks, strict=True)
        ]


def build_section(files: Sequence[ResultFile]) -> ExperimentSection:
    """Collect the experiments of files that hold steps of whole models."""
    found = [FileExperiments(distinct_gpu_name(file, files), file, collect_experiments(file)) for file in files]
    return ExperimentSection([one for one in found if one.experiments])
