"""The report's chapter on TP against PP: what each machine's experiment says, and its tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reports.evidence import name_among
from reports.experiment import answer, table
from reports.experiment.collect import Experiment, collect
from reports.experiment.record import record
from reports.files import ResultFile
from reports.page import Block, Facts, Table
from reports.plan import checked
from reports.plan.check import Check, check

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
        return [answer.sentence(self.name, one) for one in self.experiments] + [
            checked.sentence(one) for one in self.checks if one
        ]

    def tables(self) -> list[Table]:
        """One for each, and one for each plan beside what ran."""
        return [*(table.draw_up(one) for one in self.experiments), *(checked.table(one) for one in self.checks if one)]


@dataclass(frozen=True)
class Chapter:
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
            {**record(one.name, experiment), "planned": checked.record(found)}
            for one in self.ran
            for experiment, found in zip(one.experiments, one.checks, strict=True)
        ]


def write(files: Sequence[ResultFile]) -> Chapter:
    """The experiments of those files that hold steps of whole models."""
    found = [Ran(name_among(file, files), file, collect(file)) for file in files]
    return Chapter([one for one in found if one.experiments])
