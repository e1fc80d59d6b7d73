"""The table of nccl-tests: columns by their names, units as the header gives them, never assumed."""

import re
from collections.abc import Sequence
from decimal import InvalidOperation

from reports.nccl_tests.run import Row, figure, wrong
from specs.errors import UserError

UNITS = {
    "size": "(B)",
    "count": "(elements)",
    "time": "(us)",
    "algbw": "(GB/s)",
    "busbw": "(GB/s)",
    "i_min": "(us)",
    "i_max": "(us)",
    "i_p99": "(us)",
    "i_cv%": "(%)",
}
"""What stands under each column that has a unit."""
NEEDED = ("size", "count", "type", "time", "algbw", "busbw")
CPU_TIME = "times are of the CPU (-C 1), which bandwidths are not made of; run it without -C"


class Table:
    """The columns of one table.

    Args:
        titles: the line above the names, which says out-of-place and in-place.
        names: the line of names.

    Raises:
        UserError: a column is missing, or times are of something else than the operation.
    """

    def __init__(self, titles: str, names: str) -> None:
        self.names = names.lstrip("# ").split()
        if "cputime" in self.names:
            raise UserError(CPU_TIME)
        if missing := [name for name in NEEDED if name not in self.names]:
            raise UserError(f"a table without {', '.join(missing)}; give the output as nccl-tests printed it")
        halves = re.findall(r"(out-of|in)-place", titles) or ["out-of", "in"]
        self._in_place = [half == "in" for half in halves]
        if len(halves) != self.names.count("time"):
            raise UserError(f"{self.names.count('time')} columns of times under titles for {len(halves)}")
        self.errors = "error" in self.names
        self._columns = [part for name in self.names for part in ([name] * 2 if name == "timestamp" else [name])]

    def check_units(self, line: str) -> None:
        """Compare the line of units with what nccl-tests prints.

        Raises:
            UserError: a unit is missing or another one.
        """
        wanted = [(name, UNITS[name]) for name in self.names if name in UNITS]
        found = re.findall(r"\([^)]*\)", line)
        if len(found) != len(wanted):
            raise UserError(f"{len(found)} units under {len(wanted)} columns that have one; give the header unchanged")
        for (name, unit), there in zip(wanted, found, strict=True):
            if there != unit:
                raise UserError(f"{name} is in {there}, and nccl-tests prints {unit}; import its own output")

    def rows(self, place: str, line: str) -> list[Row]:
        """A line's times, out of place and in place.

        Raises:
            UserError: the line does not fit the columns.
        """
        cells = line.split()
        if len(cells) == len(self._columns) - 1 and "redop" in self._columns:
            cells.insert(self._columns.index("redop"), "none")  # some versions print nothing where nothing is reduced
        if len(cells) != len(self._columns):
            raise UserError(f"{len(cells)} values under {len(self._columns)} columns: {' '.join(line.split())[:60]!r}")
        try:
            return [self._row(place, cells, half) for half in range(len(self._in_place))]
        except (InvalidOperation, ValueError) as error:
            raise UserError(f"not a number where one belongs: {' '.join(cells)[:60]!r}") from error

    def _row(self, place: str, cells: Sequence[str], half: int) -> Row:
        def cell(name: str, *, nth: int = 0, missing: str = "") -> str:
            places = [at for at, column in enumerate(self._columns) if column == name]
            return cells[places[nth]] if places else missing

        return Row(
            place=place,
            size=int(cell("size")),
            elements=int(cell("count")),
            type=cell("type"),
            redop=cell("redop", missing="none"),
            root=int(cell("root", missing="-1")),
            in_place=self._in_place[half],
            microseconds=figure(cell("time", nth=half)),
            algbw=figure(cell("algbw", nth=half)),
            busbw=figure(cell("busbw", nth=half)),
            wrong=wrong(cell("error" if self.errors else "#wrong", nth=half, missing="N/A")),
        )
