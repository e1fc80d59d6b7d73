"""Experiments as tables: a row for each deployment at each load, with its step time, throughput and ledger."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from reports import formatting
from reports.deployment_names import cut, is_cut, listed, of, spoken, where
from reports.formatting import NONE
from reports.output import Block, Column, Facts, Table
from reports.provenance import name_among
from reports.result_tables import NOTES as NOTES_COLUMN
from reports.result_tables import shared_warnings
from reports.results import ResultFile
from reports.roofline import Figures
from reports.tp_vs_pp import validation
from reports.tp_vs_pp.compare import Duel, Experiment, Load, collect, crossover, crowd, duels, fastest, leaders
from reports.tp_vs_pp.validation import Check, check
from specs import measurement as specs_measurement
from specs.measurement import Measurement
from specs.parallel import Deployment
from specs.roofline import Ceilings

# What an experiment says of TP against PP, in a sentence.

SINGLE = "a single pass gives no interval, so no winner is named: measure with --passes 2 or more"
NO_DUEL = "TP and PP have not both run over all ranks"


def sentence(name: str, experiment: Experiment) -> str:
    """Who is faster at which loads, where PP overtakes, and which deployment gives the most tokens a second.

    A winner is named only where the interval of the ratio leaves out 1.

    Args:
        name: of the machine.
        experiment: what ran there.
    """
    setting = experiment.setting
    context = f", context {setting.context}" if setting.context else ""
    ran = f"{cut(setting)}, {setting.dtype} by {setting.implementation}{context}"
    found = "; ".join(_found(experiment))
    return f"On {name} ({setting.ranks} ranks over {setting.backend}), {_doing(experiment)} {ran}: {found}."


def _doing(experiment: Experiment) -> str:
    return "in decode of" if experiment.setting.decode else "in one-shot prefill of"


def winners(experiment: Experiment) -> list[str]:
    """Who is faster than whom at which loads, without by how much; nothing where no winner can be named."""
    return [] if _why_none(experiment) else [text for text, _ in _wins(duels(experiment))]


def _found(experiment: Experiment) -> Iterator[str]:
    if why := _why_none(experiment):
        yield why
        return
    found = duels(experiment)
    yield from _winners(found) if found else (NO_DUEL,)
    if found and experiment.setting.decode:
        yield from _crossing(found)
    yield from _most(experiment)


def _why_none(experiment: Experiment) -> str:
    """What keeps any winner from being named; empty where nothing does."""
    if all(one.interval is None for runs in experiment.loads.values() for one in runs.values()):
        return SINGLE
    if crowded := crowd(experiment.file, experiment.setting.ranks):
        return f"{crowded} and take turns, so no winner is named: what waits and for whom is in the ledgers"
    return ""


def _winners(found: Sequence[Duel]) -> Iterator[str]:
    for text, won in _wins(found):
        yield f"{text} ({_times(won)})"
    loads = [one.load for one in found]
    if even := [one.load for one in found if one.winner is None]:
        yield f"the two cannot be told apart {where(even, loads, 'any')}"


def _wins(found: Sequence[Duel]) -> Iterator[tuple[str, list[Duel]]]:
    """`TP 2 is faster than PP 2 up to a batch of 64`, and those duels."""
    if not found:
        return
    loads = [one.load for one in found]
    names = {"tp": spoken(found[0].tp), "pp": f"PP {found[0].pp.pp}"}
    for who, other in (("tp", "pp"), ("pp", "tp")):
        if won := [one for one in found if one.winner == who]:
            yield f"{names[who]} is faster than {names[other]} {where([one.load for one in won], loads)}", won


def _times(won: Sequence[Duel]) -> str:
    """`1.80 times at 1 and 1.20 times at 64`; of PP with what it took."""
    ends = won if len(won) == 1 else (won[0], won[-1])
    took = [spoken(one.pp) if one.winner == "pp" else "" for one in ends]
    alike = len(set(took)) == 1
    said = [f"{_advantage(one):.2f} times{f' {of(one.load)}' if len(ends) > 1 else ''}" for one in ends]
    if not alike:
        said = [f"{text} by {by}" for text, by in zip(said, took, strict=True)]
    return " and ".join(said) + (f", by {took[0]}" if alike and took[0] else "")


def _advantage(one: Duel) -> float:
    """How many times as fast the winner is."""
    return one.ratio.value if one.winner == "tp" else 1 / one.ratio.value


def _crossing(found: Sequence[Duel]) -> Iterator[str]:
    crossing = crossover(found)
    if crossing.after and crossing.by:
        yield f"so PP overtakes at a batch between {crossing.after} and {crossing.by}"


def _most(experiment: Experiment) -> Iterator[str]:
    """The deployment and load with the most tokens a second, and what cannot be told from it, unless nothing can.

    All at a load are told apart from the fastest at once, which is harder than the two sides of a duel: who has lost
    that to one of those named here is not named beside it.
    """
    rates = {load: load.prompt * load.batch / runs[fastest(runs)].median for load, runs in experiment.loads.items()}
    load = max(rates, key=lambda one: rates[one])
    first = _without_losers(leaders(experiment.loads[load]), [one for one in duels(experiment) if one.load == load])
    if 0 < len(first) < len(experiment.loads[load]):
        tied = ", which cannot be told apart" if len(first) > 1 else ""
        rate = formatting.digits(rates[load])
        yield f"the most tokens a second are {rate} {of(load)}, by {listed([*map(spoken, first)])}{tied}"


def _without_losers(first: Sequence[Deployment], found: Sequence[Duel]) -> list[Deployment]:
    """Leaders less the side that has lost a duel to one of them: PP with all of its schedules, or TP."""
    kept = list(first)
    for duel in found:
        winner = duel.tp if duel.winner == "tp" else duel.pp
        loser = duel.pp if duel.winner == "tp" else duel.tp
        if duel.winner and winner in kept:
            kept = [one for one in kept if (one.tp, one.pp, one.replicas) != (loser.tp, loser.pp, loser.replicas)]
    return kept


TITLES = {"linears": "lin-\nears", "attention": "attn", "all-reduce": "all-\nreduce"}
"""Of items, so narrow that a row of eight stays readable."""
FILL = {"idle": "fill,\ndrain"}
NOTES = (
    "shares are means over ranks and passes, in percent; linears hold the LM head and sampling, norms the embedding",
    "all-reduce, hop: moving what all have come for; skew: waiting for the last rank to come; host: in between",
    "best: at 95 % nothing else at that load is as fast; tied: not told from the fastest, all held against it at once",
)
DECODE = (
    "idle: waiting for another stage, the bubble",
    "the loop is closed: at one batch the shorter step has both the lower latency and more tokens a second",
)
PREFILL = ("fill, drain: what a stage waits for before its first micro-batch, after its last, and in between",)
CROWDED = "{} and take turns: what would run at once does not, so these steps say nothing of TP against PP"
CUT = "the model is cut down and a hop is not: beside a step it looks longer than in the whole model"


@dataclass(frozen=True)
class Row:
    """One deployment at one load; `mark` is best or tied."""

    load: Load
    deployment: Deployment
    figures: Figures
    mark: str

    @property
    def measurement(self) -> Measurement:
        """The record."""
        return self.figures.measurement

    @property
    def tokens_per_second(self) -> float:
        """Of the whole batch."""
        return self.load.prompt * self.load.batch / self.measurement.median

    @cached_property
    def ledger(self) -> Mapping[str, float]:
        """Shares of its step by item; empty where nothing tells."""
        return specs_measurement.ledger(self.measurement.ledgers) if self.measurement.ledgers else {}


def rows(experiment: Experiment) -> list[list[Row]]:
    """Of each load those of all deployments."""
    found = []
    for load, runs in experiment.loads.items():
        first = leaders(runs)
        marks = dict.fromkeys(first, "tied" if len(first) > 1 else "best")
        bare = {one: Figures(of, Ceilings(None, {}), None) for one, of in runs.items()}
        found.append([Row(load, one, of, marks.get(one, "")) for one, of in bare.items()])
    return found


def draw_up(experiment: Experiment) -> Table:
    """Step time, throughput and where the time goes, in percent."""
    groups, setting = rows(experiment), experiment.setting
    every = [row for group in groups for row in group]
    everywhere = shared_warnings([row.figures for row in every])
    context = f"context {setting.context}" if setting.context else ""
    shared = (cut(setting), setting.dtype, setting.implementation, setting.backend, f"{setting.ranks} ranks", context)
    columns = [*_labels(experiment), *_columns(experiment), (NOTES_COLUMN, lambda row: _notes(row, everywhere))]
    table = Table(
        title="decode steps" if setting.decode else "prefill steps",
        columns=tuple(column for column, _ in columns),
        groups=tuple(tuple(tuple(cell(row) for _, cell in columns) for row in group) for group in groups),
        caption=" · ".join(filter(None, [*shared, *everywhere])),
        notes=(*_warnings(experiment), *NOTES, *(DECODE if setting.decode else PREFILL)),
    )
    return table.without_empty(NONE)


Cell = Callable[[Row], str]


def _labels(experiment: Experiment) -> list[tuple[Column, Cell]]:
    prompt: list[tuple[Column, Cell]] = [(Column("prompt"), lambda row: f"{row.load.prompt}")]
    return [
        *(prompt if not experiment.setting.decode else ()),
        (Column("batch"), lambda row: f"{row.load.batch}"),
        (Column("deployment", number=False), lambda row: str(row.deployment)),
    ]


def _columns(experiment: Experiment) -> list[tuple[Column, Cell]]:
    every = [one for runs in experiment.loads.values() for one in runs.values()]
    time = formatting.scale(formatting.SECONDS, [one.median for one in every])
    titles = TITLES | ({} if experiment.setting.decode else FILL)
    return [
        (Column(f"step\n{time.symbol}"), lambda row: time(row.measurement.median)),
        (Column("±\n95%"), lambda row: formatting.width(row.figures.half_width)),
        (Column("tokens/s"), lambda row: formatting.digits(row.tokens_per_second)),
        (Column("best", number=False), lambda row: row.mark),
        *((Column(titles.get(item, item)), _share(item)) for item in specs_measurement.ITEMS),
    ]


def _share(item: str) -> Cell:
    return lambda row: f"{100 * row.ledger[item]:.1f}" if row.ledger.get(item) else NONE


def _notes(row: Row, everywhere: list[str]) -> str:
    return ", ".join(word for word in row.figures.warnings() if word not in everywhere)


def _warnings(experiment: Experiment) -> list[str]:
    """What keeps these steps from standing for others."""
    crowded = crowd(experiment.file, experiment.setting.ranks)
    return [*([CROWDED.format(crowded)] if crowded else []), *([CUT] if is_cut(experiment.setting) else [])]


# An experiment for a machine: SI units, medians, None where there is nothing to say.


def record(name: str, experiment: Experiment) -> dict[str, Any]:
    """Its setting, its answer, TP against PP at each load, and every run with its ledger."""
    found = duels(experiment)
    return {
        "file": str(experiment.file.path),
        **experiment.setting._asdict(),
        "answer": sentence(name, experiment),
        "crossover": asdict(crossover(found)) if found and experiment.setting.decode else None,
        "duels": [_duel(one) for one in found],
        "runs": [_run(row) for group in rows(experiment) for row in group],
    }


def _duel(one: Duel) -> dict[str, Any]:
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


def _run(row: Row) -> dict[str, Any]:
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
        "stages": specs_measurement.by_stage(ledgers) if ledgers else None,
        "warnings": row.figures.warnings(),
    }


# The report's chapter on TP against PP: what each machine's experiment says, and its tables.

TITLE = "TP against PP"


@dataclass(frozen=True)
class Ran:
    """The experiments of one file; `name` tells its machine from the others of a report."""

    name: str
    file: ResultFile
    experiments: Sequence[Experiment]

    @cached_property
    def checks(self) -> Sequence[Check | None]:
        """Of each experiment the plan that it can be held against; None where it cannot."""
        return [check(one) for one in self.experiments]

    def sentences(self) -> list[str]:
        """The answer of each, and how well a plan would have told it."""
        return [sentence(self.name, one) for one in self.experiments] + [
            validation.sentence(one) for one in self.checks if one
        ]

    def tables(self) -> list[Table]:
        """One for each, and one for each plan beside what ran."""
        return [*(draw_up(one) for one in self.experiments), *(validation.table(one) for one in self.checks if one)]


@dataclass(frozen=True)
class ExperimentChapter:
    """The experiments of all files."""

    ran: Sequence[Ran]

    def __bool__(self) -> bool:
        return bool(self.ran)

    def sentences(self) -> list[str]:
        """What they say in words."""
        return [text for one in self.ran for text in one.sentences()]

    def blocks(self) -> list[Block]:
        """For the terminal; nothing where no file holds an experiment."""
        if not self:
            return []
        blocks: list[Block] = [Facts(title=TITLE, rows=tuple(("", text) for text in self.sentences()), level=1)]
        for one in self.ran:
            if len(self.ran) > 1:
                blocks.append(Facts(title=f"measured by {one.name}", rows=(("file", str(one.file.path)),)))
            blocks += one.tables()
        return blocks

    def data(self) -> list[dict[str, Any]]:
        """For a machine."""
        return [
            {**record(one.name, experiment), "planned": validation.record(found)}
            for one in self.ran
            for experiment, found in zip(one.experiments, one.checks, strict=True)
        ]


def write(files: Sequence[ResultFile]) -> ExperimentChapter:
    """The experiments of those files that hold steps of whole models."""
    found = [Ran(name_among(file, files), file, collect(file)) for file in files]
    return ExperimentChapter([one for one in found if one.experiments])
