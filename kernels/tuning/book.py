"""One table that a search fills, on the disk: its hunts, the journal of their tries, and the rows found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kernels.tuning.search import SEEDS, Hunt
from kernels.tuning.table import MEASURED, Table, dump
from kernels.tuning.trials import Trial, read_trials, write_trial
from specs.errors import UserError


@dataclass
class Book:
    """A table, and what is being searched for it.

    Attributes:
        path: of the table; the journal lies beside it.
        table: as found, then as filled.
        made: the GPU, the versions and the kernel of this search.
        row: makes one of a shape's fields, a configuration, seconds and a basis.
        hunts: one a shape.
    """

    path: Path
    table: Table[Any]
    made: dict[str, str]
    row: Callable[..., Any]
    hunts: Sequence[Hunt] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        """Where tries are written, a line each."""
        return self.path.with_suffix(".trials.jsonl")

    def recall(self) -> int:
        """Give the hunts what was tried before; how many tries that were."""
        by_shape, known = {hunt.shape: hunt for hunt in self.hunts}, 0
        if not self.hunts:
            return 0
        shape, config = type(self.hunts[0].shape), type(self.hunts[0].ranked[0])
        for trial in read_trials(self.journal, self.made, shape, config):
            if hunt := by_shape.get(trial.shape):
                hunt.seconds[trial.config], known = trial.seconds, known + 1
        return known

    def record(self, hunt: Hunt, config: Any, seconds: float, problem: str) -> None:
        """Keep a try for the searches that follow."""
        write_trial(self.journal, Trial(self.made, hunt.shape, config, seconds, problem))

    def fill(self) -> Path:
        """Write the table with the best of each hunt; one that has hardly begun has found nothing yet."""
        basis = MEASURED + self.made["gpu"]
        for hunt in self.hunts:
            if (best := hunt.best) is not None and len(hunt.seconds) >= min(SEEDS, len(hunt.ranked)):
                made = self.made | {"date": datetime.now(UTC).date().isoformat()}
                self.table = with_made(self.table, basis, made)
                sizes = hunt.shape._asdict()
                self.table = self.table.with_row(
                    self.row(**sizes, config=best, seconds=hunt.seconds[best], basis=basis)
                )
        return write(self.path, self.table)


def with_made(table: Table[Any], basis: str, made: dict[str, str]) -> Table[Any]:
    """The table with what rows of a basis were made with."""
    return Table(table.arch, table.made | {basis: made}, table.rows)


def folder(into: Path) -> Path:
    """The folder of the tables, made where it is missing.

    Raises:
        UserError: it cannot be.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--into {into}: {error.strerror}; choose a folder that can be written") from error
    return into


def write(path: Path, table: Table[Any]) -> Path:
    """Whole or not at all: a reader never meets half a table.

    Raises:
        UserError: it cannot be written.
    """
    half = folder(path.parent) / f"{path.stem}.half"
    try:
        half.write_text(dump(table))
        half.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; choose a folder that can be written with --into") from error
    return path
