"""The report's chapter on planned steps: what each GPU's files say of TP against PP over 8 of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.evidence import name_among
from reports.files import ResultFile
from reports.page import Block, Column, Facts, Table
from reports.plan import table, words
from reports.plan.again import command
from reports.plan.answer import brief, lead, sentence
from reports.plan.plan import Plan
from reports.plan.record import record
from reports.plan.shared import QUESTION, planned
from reports.units import NONE

TITLE = "TP or PP, planned"
VERDICTS = {"crossover": "PP overtakes", "tp": "TP leads throughout", "pp": "PP leads throughout", "ambiguous": "open"}


@dataclass(frozen=True)
class Planned:
    """The plan of one file; `name` tells its GPU from the others of a report."""

    name: str
    file: ResultFile
    plan: Plan

    @property
    def again(self) -> str:
        """The command that makes it again."""
        return command([self.file.path], self.plan.asked)

    @property
    def sentence(self) -> str:
        """Its answer in full."""
        return sentence(self.plan)


@dataclass(frozen=True)
class Chapter:
    """The plans of all files that one can be made of."""

    planned: Sequence[Planned]

    def __bool__(self) -> bool:
        return bool(self.planned)

    def sentences(self) -> list[str]:
        """What they say in few words, and first what they share."""
        if not self:
            return []
        return [lead(self.planned[0].plan.asked), *(brief(one.plan, one.name) for one in self.planned)]

    def tables(self) -> list[Table]:
        """All GPUs side by side: where PP overtakes, and the best split for each latency."""
        return [_crossovers(self.planned), _targets(self.planned)] if self else []

    def blocks(self) -> list[Block]:
        """For the terminal; nothing where nothing can be planned."""
        if not self:
            return []
        said = Facts(title=TITLE, rows=tuple(("", one.sentence) for one in self.planned), level=1)
        commands = tuple((one.name, one.again) for one in self.planned)
        return [said, *self.tables(), Facts(title="every split, its parts and cases", rows=commands)]

    def data(self) -> list[dict[str, Any]]:
        """For a machine. Points come without the names of their cases: the command's own JSON has them."""
        return [{"name": one.name, "command": one.again, **_short(record(one.plan))} for one in self.planned]


def write(files: Sequence[ResultFile]) -> Chapter:
    """The plans of those files that hold what one needs."""
    found = [(file, plan) for file in files if (plan := planned(file, QUESTION))]
    return Chapter([Planned(name_among(file, files), file, plan) for file, plan in found])


def _short(full: dict[str, Any]) -> dict[str, Any]:
    points = [{key: value for key, value in point.items() if key != "cases"} for point in full["points"]]
    return full | {"points": points}


def _crossovers(planned: Sequence[Planned]) -> Table:
    asked = planned[0].plan.asked
    return Table(
        title="where async PP overtakes TP",
        columns=(
            Column("GPU", number=False),
            Column("possibly\nfrom"),
            Column("about"),
            Column("surely\nfrom"),
            Column("verdict", number=False),
            Column("batches looked at"),
            Column("which end with", number=False, prose=True),
        ),
        groups=(tuple(_crossover(one) for one in planned),),
        caption=f"batch from which on PP {asked.gpus} gives more tokens a second than TP {asked.gpus} for good",
        notes=(
            "possibly: the first at which PP may be ahead in any variant; about: for good, in the middle one; "
            "surely: for good, in all",
            "range: over variants, caches, and what is assumed",
            words.VARIANTS,
            words.FOR_GOOD,
            words.UNSEEN,
        ),
    )


def _crossover(one: Planned) -> tuple[str, ...]:
    found = one.plan.crossover
    if found is None:
        return one.name, NONE, NONE, NONE, "not both planned", NONE, next((f.why for f in one.plan.left_out), "")
    batches = (str(batch) if batch else NONE for batch in (found.low, found.batch, found.high))
    first, last = found.looked_at
    return one.name, *batches, VERDICTS[found.verdict], f"{first}–{last}", found.bound_by or "nobody looks further"


def _targets(planned: Sequence[Planned]) -> Table:
    tied = Column("tied with", number=False, prose=True)
    columns = Column("at most\nms"), Column("GPU", number=False), *(column for column, _ in table.SHORTLY), tied
    return Table(
        title="best split for a latency",
        columns=columns,
        groups=tuple(_target(planned, place) for place in range(len(planned[0].plan.targets))),
        caption="among the batches asked for the most tokens a second within what a token may take",
        notes=(words.OTHER_BATCHES,),
    )


def _target(planned: Sequence[Planned], place: int) -> tuple[tuple[str, ...], ...]:
    """One latency, a row for each GPU."""
    found = [(one.name, one.plan.targets[place]) for one in planned]
    return tuple(
        (f"{1e3 * one.latency_seconds:g}", name, *table.shortly(one.best), words.tied(one)) for name, one in found
    )
