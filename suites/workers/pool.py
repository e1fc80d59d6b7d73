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
from kernels.timing.device import SamplingLimits
from suites.case import CaseState
from suites.workers.launcher import RankPlan
from suites.workers.process import (
    HEARTBEAT_TIMEOUT_SECONDS,
    CaseRefusedError,
    Message,
    RankLostError,
    Spawner,
    WorkerHandle,
)

GRACE_SECONDS = 2.0
"""How long the others are waited for once one rank has failed: whoever caused it may be about to say so."""
SHUTDOWN_SECONDS = 3.0
NO_VARIABLES: Mapping[str, str] = {}
JOIN_ACTIVITY = "joining the others"
SETUP_COMMANDS = ("draw", "build", "share")
"""Commands that set a case up: a rank that fails at one is well, and can be asked for another case."""
SECONDARY_ERRORS = ("closed by peer", "reset by peer", "timed out", "timeout", "broken pipe", "connection refused")
"""What a rank says when it is another's death that it noticed."""


class WorkerPool:
    """The ranks of a run.

    Args:
        muster: where they come from.
        kind: cpu or cuda.
        timeout_seconds: the longest that starting, or one command, may take.
    """

    def __init__(self, spawner: Spawner, kind: str, timeout_seconds: float) -> None:
        self._spawner, self._kind, self._timeout = spawner, kind, timeout_seconds
        self._handles: list[WorkerHandle] = []
        self._store: TCPStore | None = None
        self._generation = self._turn = 0
        self.hosts = 1

    @property
    def is_running(self) -> bool:
        """Whether the ranks are there."""
        return bool(self._handles)

    @property
    def processes(self) -> list[int]:
        """The ranks' processes on this host."""
        return [link.pid for link in self._handles if hasattr(link, "pid")]

    def start(self, first: Mapping[str, str] = NO_VARIABLES) -> None:
        """Start all ranks and let them find each other.

        Args:
            first: variables of rank 0 alone.

        Raises:
            RankLostError: one does not arrive.
        """
        self._generation += 1
        self._handles = self._spawner.start(first)
        self._store = TCPStore(self._spawner.address, 0, is_master=True, wait_for_workers=False)
        cores, worlds = psutil.cpu_count(logical=False) or 1, self._worlds()
        replies = self.run_command(
            "join",
            {"store": (self._spawner.address, self._store.port)},
            JOIN_ACTIVITY,
            lambda rank: {"world": asdict(worlds[rank]), "threads": max(1, cores // worlds[rank].local_ranks)},
        )
        self.hosts = len({reply["host"] for reply in replies})

    def _worlds(self) -> list[World]:
        """The parent's limit ends a wait, not the ranks': a rank that gives up says nothing of who is to blame."""
        ranks, launcher, patience = len(self._handles), self._spawner.launcher, 2 * self._timeout + GRACE_SECONDS
        return [
            World(link.rank, ranks, *link.local, self._kind, launcher, patience, generation=self._generation)
            for link in self._handles
        ]

    def run_command(
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
            for link in self._handles:
                link.send({"do": command, "with": {**arguments, **each(link.rank)}, "turn": self._turn})
            replies = self._collect(doing)
            failed = _failures_by_rank(replies)
            if failed and command in SETUP_COMMANDS:
                raise CaseRefusedError(_failure_summary(failed, ""))
            if failed:
                raise RankLostError(_failure_summary(failed, f" while {doing}"))
        except BaseException as error:
            if not isinstance(error, CaseRefusedError):
                self.end()
            raise
        return [replies[link.rank] for link in self._handles]

    def _collect(self, doing: str) -> dict[int, Message]:
        links = {link.rank: link for link in self._handles}
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
                    message = link.receive()
                    if "died" in message:
                        died[link.rank] = message["died"]
                    elif "beat" in message:
                        beats[link.rank] = time.monotonic(), message
                    elif message.get("turn") == self._turn:
                        replies[link.rank] = message
            if not in_grace and (died or _failures_by_rank(replies)):
                in_grace, deadline = True, min(deadline, time.monotonic() + GRACE_SECONDS)
        if died:
            raise RankLostError(f"{_death_summary(died)} while {doing}")
        if missing and (failed := _failures_by_rank(replies)):
            raise RankLostError(_failure_summary(failed, f" while {doing}"))
        if missing:
            for link in missing:
                link.mark_silent()
            raise RankLostError(_silence_summary(missing, beats, doing, self._timeout))
        return replies

    def end(self) -> None:
        """End every rank's process; nothing to do where none runs."""
        links, self._handles, self._store = self._handles, [], None
        for link in links:
            link.end()

    def close(self) -> None:
        """End the ranks for good."""
        for link in self._handles:
            link.send({"do": "end"})
        deadline, open_ones = time.monotonic() + SHUTDOWN_SECONDS, list(self._handles)
        while open_ones and (left := deadline - time.monotonic()) > 0:
            ready = wait([link.wire.connection for link in open_ones], timeout=left)
            open_ones = [one for one in open_ones if one.wire.connection not in ready or "died" not in one.receive()]
        self.end()
        self._spawner.close()


def _failures_by_rank(replies: Mapping[int, Message]) -> dict[int, str]:
    """By rank, why it could not do what it was told."""
    return {rank: reply["failed"] for rank, reply in replies.items() if "failed" in reply}


def _failure_summary(failed: dict[int, str], doing: str) -> str:
    """What went wrong first: not what a rank noticed of another's failure, and once where all say the same."""
    causes = {
        rank: why for rank, why in failed.items() if not any(word in why.lower() for word in SECONDARY_ERRORS)
    } or failed
    if len(set(causes.values())) == 1 and len(causes) > 1:
        return f"every rank failed{doing}: {next(iter(causes.values()))}"
    return "; ".join(f"rank {rank} failed{doing}: {why}" for rank, why in list(causes.items())[:2])


def _death_summary(died: dict[int, str]) -> str:
    return ", ".join(f"rank {rank} {how}" for rank, how in died.items())


def _silence_summary(
    missing: Sequence[WorkerHandle], beats: dict[int, tuple[float, Message]], doing: str, limit: float
) -> str:
    """Who does not answer: those that give no sign of life, or else all that were waited for and where they are."""
    now = time.monotonic()
    unheard = [link.rank for link in missing if not beats[link.rank][1]]
    if unheard and doing == JOIN_ACTIVITY:
        return f"{_rank_list(unheard)} did not start within {limit:g} s; look for what hangs, or raise --rank-timeout"
    stopped = [link.rank for link in missing if now - beats[link.rank][0] > HEARTBEAT_TIMEOUT_SECONDS]
    if stopped:
        return f"{_rank_list(stopped)} stopped answering while {doing}; given up after {limit:g} s"
    where = "; ".join(f"rank {link.rank} is in {beats[link.rank][1].get('in') or 'unknown code'}" for link in missing)
    return f"{_rank_list([link.rank for link in missing])} did not finish {doing} within {limit:g} s ({where})"


def _rank_list(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


# What every bench of ranks shares: to start them, to end a case that loses one, to end a run that loses several.

MAX_FAILED_STARTS = 2
"""Times that ranks which once ran are started anew in vain before the run ends."""
MAX_LOSSES_IN_A_ROW = 3
"""Cases that may end a rank one after another before the machine is taken to be at fault."""


class MultiRankBench:
    """What visits to cases of all ranks share: the ranks, and which cases were checked.

    Args:
        crew: all ranks.
        ranks: how many, and of what kind.
        entries: all cases.
        limits: how long to measure.
        remedy: what to do about a case that takes too much memory.
    """

    runs_in_process = False

    def __init__(
        self, workers: WorkerPool, ranks: RankPlan, entries: Sequence[CaseState], limits: SamplingLimits, remedy: str
    ) -> None:
        self._workers, self._ranks, self._kind, self._remedy = workers, ranks, ranks.kind, remedy
        self.limits = limits
        self._numbers = {id(entry): number for number, entry in enumerate(entries)}
        self._verified: set[int] = set()
        self._lost, self._in_a_row, self._failed_starts = "", 0, 0
        self._has_started = False

    def visit(self, entry: Any, share: float) -> tuple[float, ...]:
        """Samples of one visit; none where a result is wrong."""
        raise NotImplementedError

    def lost(self) -> str:
        """Why no more ranks are started; empty while they are."""
        return self._lost

    def describe_error(self, _: CaseState, error: Exception) -> str:
        """One line on what ended a case."""
        if isinstance(error, RankLostError):
            self._in_a_row += 1
            if self._in_a_row >= MAX_LOSSES_IN_A_ROW and not self._lost:
                self._lost = f"{MAX_LOSSES_IN_A_ROW} cases in a row ended a rank, the last: {error}"
        text = " ".join(str(error).split())
        if "OutOfMemoryError" in text or "MemoryError" in text or "can't allocate memory" in text:
            return f"out of memory: {text}; {self._remedy}"
        return text

    def ensure_started(self) -> None:
        """Start the ranks unless they run; ranks that are new check every case again.

        Raises:
            RankLostError: one does not arrive. Those that never came are not tried again, nor others time after time.
        """
        if self._workers.is_running:
            return
        if self._lost:
            raise RankLostError(self._lost)
        self._verified.clear()
        try:
            self._workers.start()
        except RankLostError as error:
            self._failed_starts += 1
            if not self._has_started or self._failed_starts >= MAX_FAILED_STARTS:
                self._lost = str(error)
            raise
        self._has_started, self._failed_starts = True, 0

    def _label(self, entry: CaseState) -> dict[str, Any]:
        """What a rank's ranges call a case."""
        return {"name": entry.case.name, "question": entry.case.question, "number": self._numbers[id(entry)]}

    def _record_check(self, entry: CaseState, replies: Sequence[Message], limit: float) -> bool:
        """Whether every rank's result is right; the worst error is kept, and a case that is right is checked."""
        entry.check(_worst_error(replies), limit)
        if entry.failed is None:
            self._verified.add(self._numbers[id(entry)])
        return entry.failed is None

    def _is_verified(self, entry: CaseState) -> bool:
        """Whether these ranks' results were right before."""
        return self._numbers[id(entry)] in self._verified


def _worst_error(replies: Sequence[Message]) -> float:
    """The largest error; NaN, which JSON has not, where a rank found an element that was not written."""
    errors = [float(reply["error"]) for reply in replies if reply["error"] is not None]  # float("nan") is one
    return nan if any(map(isnan, errors)) else max(errors, default=nan)
