"""Experiments as tables: a row for each deployment at each load, with its step time, throughput and ledger."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from reports import units
from reports.experiment.collect import Experiment, Load, crowd
from reports.experiment.duel import leaders
from reports.experiment.words import cut, is_cut
from reports.figures import Figures
from reports.page import Column, Table
from reports.tables import NOTES as NOTES_COLUMN
from reports.tables import shared_warnings
from reports.units import NONE
from specs import measurement as specs_measurement
from specs.measurement import Measurement
from specs.parallel import Deployment
from specs.roofline import Ceilings

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
    time = units.scale(units.SECONDS, [one.median for one in every])
    titles = TITLES | ({} if experiment.setting.decode else FILL)
    return [
        (Column(f"step\n{time.symbol}"), lambda row: time(row.measurement.median)),
        (Column("±\n95%"), lambda row: units.width(row.figures.half_width)),
        (Column("tokens/s"), lambda row: units.digits(row.tokens_per_second)),
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
