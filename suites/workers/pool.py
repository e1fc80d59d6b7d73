"""All ranks as one: started together, told the same, ended together when one is lost.

The parent watches. A rank that dies closes its pipe, one that is stopped falls silent, one that hangs says where it is:
whatever happens, a command is over after its limit, and the reason names the rank.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import isnan, nan
from multiprocessing.connection import wait
from typing import Any

import psutil
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from comm.backend import World
from kernels.timing.device import Patience
from suites.case import Entry
from suites.workers.launcher import Ranks
from suites.workers.process import SILENT_SECONDS, CaseRefusedError, Link, Message, Muster, RankLostError

GRACE_SECONDS = 2.0
"""How long the others are waited for once one rank has failed: whoever caused it may be about to say so."""
FAREWELL_SECONDS = 3.0
NOTHING: Mapping[str, str] = {}
JOINING = "joining the others"
REFUSABLE = ("draw", "build", "share")
"""Commands that set a case up: a rank that fails at one is well, and can be asked for another case."""
SECONDARY = ("closed by peer", "reset by peer", "timed out", "timeout", "broken pipe", "connection refused")
"""What a rank says when it is another's death that it noticed."""


class Crew:
    """The ranks of a run.

    Args:
        muster: where they come from.
        kind: cpu or cuda.
        timeout_seconds: the longest that starting, or one command, may take.
    """

    def __init__(self, muster: Muster, kind: str, timeout_seconds: float) -> None:
        self._muster, self._kind, self._timeout = muster, kind, timeout_seconds
        self._links: list[Link] = []
        self._store: TCPStore | None = None
        self._generation = self._turn = 0
        self.hosts = 1

    @property
    def running(self) -> bool:
        """Whether the ranks are there."""
        return bool(self._links)

    @property
    def processes(self) -> list[int]:
        """The ranks' processes on this host."""
        return [link.pid for link in self._links if hasattr(link, "pid")]

    def start(self, first: Mapping[str, str] = NOTHING) -> None:
        """Start all ranks and let them find each other.

        Args:
            first: variables of rank 0 alone.

        Raises:
            RankLostError: one does not arrive.
        """
        self._generation += 1
        self._links = self._muster.start(first)
        self._store = TCPStore(self._muster.address, 0, is_master=True, wait_for_workers=False)
        cores, worlds = psutil.cpu_count(logical=False) or 1, self._worlds()
        replies = self.ask(
            "join",
            {"store": (self._muster.address, self._store.port)},
            JOINING,
            lambda rank: {"world": asdict(worlds[rank]), "threads": max(1, cores // worlds[rank].local_ranks)},
        )
        self.hosts = len({reply["host"] for reply in replies})

    def _worlds(self) -> list[World]:
        """The parent's limit ends a wait, not the ranks': a rank that gives up says nothing of who is to blame."""
        ranks, launcher, patience = len(self._links), self._muster.launcher, 2 * self._timeout + GRACE_SECONDS
        return [
            World(link.rank, ranks, *link.local, self._kind, launcher, patience, generation=self._generation)
            for link in self._links
        ]

    def ask(
        self, command: str, arguments: Message, doing: str, each: Callable[[int], Message] = lambda _: {}
    ) -> list[Message]:
        """Tell every rank the same and wait for all answers, in the order of ranks.

        Args:
            command: what to do.
            arguments: what with.
            doing: what a reason calls it.
            each: what a rank is told besides.

        Raises:
            CaseRefusedError: a rank cannot, and all are well.
            RankLostError: a rank is gone or hangs. The others were ended too.
        """
        self._turn += 1
        try:
            for link in self._links:
                link.tell({"do": command, "with": {**arguments, **each(link.rank)}, "turn": self._turn})
            replies = self._collect(doing)
            failed = _failed(replies)
            if failed and command in REFUSABLE:
                raise CaseRefusedError(_told(failed, ""))
            if failed:
                raise RankLostError(_told(failed, f" while {doing}"))
        except BaseException as error:
            if not isinstance(error, CaseRefusedError):
                self.end()
            raise
        return [replies[link.rank] for link in self._links]

    def _collect(self, doing: str) -> dict[int, Message]:
        links = {link.rank: link for link in self._links}
        replies: dict[int, Message] = {}
        beats: dict[int, tuple[float, Message]] = {rank: (time.monotonic(), {}) for rank in links}
        died: dict[int, str] = {}
        deadline, in_grace = time.monotonic() + self._timeout, False
        while missing := [links[rank] for rank in links if rank not in replies and rank not in died]:
            ready = wait([link.wire.connection for link in missing], timeout=max(0.0, deadline - time.monotonic()))
            if not ready and time.monotonic() >= deadline:
                break
            for link in missing:
                if link.wire.connection in ready:
                    message = link.hear()
                    if "died" in message:
                        died[link.rank] = message["died"]
                    elif "beat" in message:
                        beats[link.rank] = time.monotonic(), message
                    elif message.get("turn") == self._turn:
                        replies[link.rank] = message
            if not in_grace and (died or _failed(replies)):
                in_grace, deadline = True, min(deadline, time.monotonic() + GRACE_SECONDS)
        if died:
            raise RankLostError(f"{_each(died)} while {doing}")
        if missing and (failed := _failed(replies)):
            raise RankLostError(_told(failed, f" while {doing}"))
        if missing:
            for link in missing:
                link.give_up()
            raise RankLostError(_silent(missing, beats, doing, self._timeout))
        return replies

    def end(self) -> None:
        """End every rank's process; nothing to do where none runs."""
        links, self._links, self._store = self._links, [], None
        for link in links:
            link.end()

    def close(self) -> None:
        """End the ranks for good."""
        for link in self._links:
            link.tell({"do": "end"})
        deadline, open_ones = time.monotonic() + FAREWELL_SECONDS, list(self._links)
        while open_ones and (left := deadline - time.monotonic()) > 0:
            ready = wait([link.wire.connection for link in open_ones], timeout=left)
            open_ones = [one for one in open_ones if one.wire.connection not in ready or "died" not in one.hear()]
        self.end()
        self._muster.close()


def _failed(replies: Mapping[int, Message]) -> dict[int, str]:
    """By rank, why it could not do what it was told."""
    return {rank: reply["failed"] for rank, reply in replies.items() if "failed" in reply}


def _told(failed: dict[int, str], doing: str) -> str:
    """What went wrong first: not what a rank noticed of another's failure, and once where all say the same."""
    causes = {rank: why for rank, why in failed.items() if not any(word in why.lower() for word in SECONDARY)} or failed
    if len(set(causes.values())) == 1 and len(causes) > 1:
        return f"every rank failed{doing}: {next(iter(causes.values()))}"
    return "; ".join(f"rank {rank} failed{doing}: {why}" for rank, why in list(causes.items())[:2])


def _each(died: dict[int, str]) -> str:
    return ", ".join(f"rank {rank} {how}" for rank, how in died.items())


def _silent(missing: Sequence[Link], beats: dict[int, tuple[float, Message]], doing: str, limit: float) -> str:
    """Who does not answer: those that give no sign of life, or else all that were waited for and where they are."""
    now = time.monotonic()
    unheard = [link.rank for link in missing if not beats[link.rank][1]]
    if unheard and doing == JOINING:
        return f"{_ranks(unheard)} did not start within {limit:g} s; look for what hangs, or raise --rank-timeout"
    stopped = [link.rank for link in missing if now - beats[link.rank][0] > SILENT_SECONDS]
    if stopped:
        return f"{_ranks(stopped)} stopped answering while {doing}; given up after {limit:g} s"
    where = "; ".join(f"rank {link.rank} is in {beats[link.rank][1].get('in') or 'unknown code'}" for link in missing)
    return f"{_ranks([link.rank for link in missing])} did not finish {doing} within {limit:g} s ({where})"


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


# What every bench of ranks shares: to start them, to end a case that loses one, to end a run that loses several.

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
