"""What every bench of ranks shares: to start them, to end a case that loses one, to end a run that loses several."""

from collections.abc import Sequence
from math import isnan, nan
from typing import Any

from kernels.timing.device import Patience
from suites.entry import Entry
from suites.world.crew import Crew
from suites.world.link import RankLostError
from suites.world.ranks import Ranks
from suites.world.wire import Message

MOST_STARTS = 2
"""Times that ranks which once ran are started anew in vain before the run ends."""
MOST_IN_A_ROW = 3
"""Cases that may end a rank one after another before the machine is taken to be at fault."""


class CrewBench:
    """What visits to cases of all ranks share: the ranks, and which cases were checked.

    Args:
        crew: all ranks.
        ranks: how many, and of what kind.
        entries: all cases.
        patience: how long to measure.
        remedy: what to do about a case that takes too much memory.
    """

    same_process = False

    def __init__(self, crew: Crew, ranks: Ranks, entries: Sequence[Entry], patience: Patience, remedy: str) -> None:
        self._crew, self._ranks, self._kind, self._remedy = crew, ranks, ranks.kind, remedy
        self.patience = patience
        self._numbers = {id(entry): number for number, entry in enumerate(entries)}
        self._verified: set[int] = set()
        self._lost, self._in_a_row, self._failed_starts = "", 0, 0
        self._came = False

    def visit(self, entry: Any, share: float) -> tuple[float, ...]:
        """Samples of one visit; none where a result is wrong."""
        raise NotImplementedError

    def lost(self) -> str:
        """Why no more ranks are started; empty while they are."""
        return self._lost

    def told(self, _: Entry, error: Exception) -> str:
        """One line on what ended a case."""
        if isinstance(error, RankLostError):
            self._in_a_row += 1
            if self._in_a_row >= MOST_IN_A_ROW and not self._lost:
                self._lost = f"{MOST_IN_A_ROW} cases in a row ended a rank, the last: {error}"
        text = " ".join(str(error).split())
        if "OutOfMemoryError" in text or "MemoryError" in text or "can't allocate memory" in text:
            return f"out of memory: {text}; {self._remedy}"
        return text

    def assemble(self) -> None:
        """Start the ranks unless they run; ranks that are new check every case again.

        Raises:
            RankLostError: one does not arrive. Those that never came are not tried again, nor others time after time.
        """
        if self._crew.running:
            return
        if self._lost:
            raise RankLostError(self._lost)
        self._verified.clear()
        try:
            self._crew.start()
        except RankLostError as error:
            self._failed_starts += 1
            if not self._came or self._failed_starts >= MOST_STARTS:
                self._lost = str(error)
            raise
        self._came, self._failed_starts = True, 0

    def _label(self, entry: Entry) -> dict[str, Any]:
        """What a rank's ranges call a case."""
        return {"name": entry.case.name, "question": entry.case.question, "number": self._numbers[id(entry)]}

    def _right(self, entry: Entry, replies: Sequence[Message], limit: float) -> bool:
        """Whether every rank's result is right; the worst error is kept, and a case that is right is checked."""
        entry.check(_worst(replies), limit)
        if entry.failed is None:
            self._verified.add(self._numbers[id(entry)])
        return entry.failed is None

    def _checked(self, entry: Entry) -> bool:
        """Whether these ranks' results were right before."""
        return self._numbers[id(entry)] in self._verified


def _worst(replies: Sequence[Message]) -> float:
    """The largest error; NaN, which JSON has not, where a rank found an element that was not written."""
    errors = [float(reply["error"]) for reply in replies if reply["error"] is not None]  # float("nan") is one
    return nan if any(map(isnan, errors)) else max(errors, default=nan)
