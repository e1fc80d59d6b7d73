"""Pool of all ranks: start them, send commands, and end all when one is lost.

The parent detects each failure. A rank that dies closes its pipe, a stopped rank sends no heartbeat, and a hanging
rank's heartbeat names its function. So every command ends within its limit, and the reason names the rank.
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
"""Wait for other ranks after a failure: the cause may be about to report."""
SHUTDOWN_SECONDS = 3.0
NO_VARIABLES: Mapping[str, str] = {}
JOIN_ACTIVITY = "joining the others"
SETUP_COMMANDS = ("draw", "build", "share")
"""Commands that set a case up: a rank that fails can take another case."""
SECONDARY_ERRORS = ("closed by peer", "reset by peer", "timed out", "timeout", "broken pipe", "connection refused")
"""Texts of errors by which a rank notices another rank's death."""


class WorkerPool:
    """Ranks of a run.

    Args:
        spawner: starts the ranks.
        kind: cpu or cuda.
        timeout_seconds: limit of the start, and of each command.
    """

    def __init__(self, spawner: Spawner, kind: str, timeout_seconds: float) -> None:
        self._spawner, self._kind, self._timeout = spawner, kind, timeout_seconds
        self._handles: list[WorkerHandle] = []
        self._store: TCPStore | None = None
        self._generation = self._turn = 0
        self.hosts = 1

    @property
    def is_running(self) -> bool:
        """True while the ranks run."""
        return bool(self._handles)

    @property
    def processes(self) -> list[int]:
        """Process ids of the ranks on this host."""
        return [link.pid for link in self._handles if hasattr(link, "pid")]

    def start(self, first: Mapping[str, str] = NO_VARIABLES) -> None:
        """Start all ranks and connect them.

        Args:
            first: variables of rank 0 alone.

        Raises:
            RankLostError: a rank does not arrive.
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
        """World of each rank.

        The ranks' own limit exceeds the parent's: the parent must end a wait, because a rank that gives up cannot say
        which rank is at fault.
        """
        ranks, launcher, patience = len(self._handles), self._spawner.launcher, 2 * self._timeout + GRACE_SECONDS
        return [
            World(link.rank, ranks, *link.local, self._kind, launcher, patience, generation=self._generation)
            for link in self._handles
        ]

    def run_command(
        self, command: str, arguments: Message, doing: str, each: Callable[[int], Message] = lambda _: {}
    ) -> list[Message]:
        """Send a command to every rank and return all replies, in the order of ranks.

        Args:
            command: name of the command.
            arguments: arguments for all ranks.
            doing: name of the activity in reasons.
            each: further arguments by rank.

        Raises:
            CaseRefusedError: a rank cannot run the case, and all ranks are healthy.
            RankLostError: a rank is gone or hangs. All ranks were ended.
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
        """End every rank's process, if any runs."""
        links, self._handles, self._store = self._handles, [], None
        for link in links:
            link.end()

    def close(self) -> None:
        """Shut the ranks and the spawner down."""
        for link in self._handles:
            link.send({"do": "end"})
        deadline, open_ones = time.monotonic() + SHUTDOWN_SECONDS, list(self._handles)
        while open_ones and (left := deadline - time.monotonic()) > 0:
            ready = wait([link.wire.connection for link in open_ones], timeout=left)
            open_ones = [one for one in open_ones if one.wire.connection not in ready or "died" not in one.receive()]
        self.end()
        self._spawner.close()


def _failures_by_rank(replies: Mapping[int, Message]) -> dict[int, str]:
    """Errors by rank."""
    return {rank: reply["failed"] for rank, reply in replies.items() if "failed" in reply}


def _failure_summary(failed: dict[int, str], doing: str) -> str:
    """Summary of the first failures.

    Errors caused by another rank's failure are left out. An error that all ranks share appears once.
    """
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
    """Ranks that do not answer: those without heartbeat, or all that are missing.

    The latter appear with their current function.
    """
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


# Visits to cases of all ranks: start the ranks, end a case that loses a rank, end a run that loses several

MAX_FAILED_STARTS = 2
"""Failed restarts of ranks before the run ends."""
MAX_LOSSES_IN_A_ROW = 3
"""Consecutive cases that lose a rank before the machine counts as faulty."""


class MultiRankBench:
    """Visits to cases of all ranks: workers, and the cases verified so far.

    Args:
        workers: all ranks.
        ranks: number and device kind of the ranks.
        entries: all cases.
        limits: sampling limits.
        remedy: advice for a case that needs too much memory.
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
        """Samples of one visit; none if a result is wrong."""
        raise NotImplementedError

    def lost(self) -> str:
        """Return why no more ranks are started; empty while they are."""
        return self._lost

    def describe_error(self, _: CaseState, error: Exception) -> str:
        """Return one line on the error that ended a case."""
        if isinstance(error, RankLostError):
            self._in_a_row += 1
            if self._in_a_row >= MAX_LOSSES_IN_A_ROW and not self._lost:
                self._lost = f"{MAX_LOSSES_IN_A_ROW} cases in a row ended a rank, the last: {error}"
        text = " ".join(str(error).split())
        if "OutOfMemoryError" in text or "MemoryError" in text or "can't allocate memory" in text:
            return f"out of memory: {text}; {self._remedy}"
        return text

    def ensure_started(self) -> None:
        """Start the ranks unless they run; new ranks verify every case again.

        Raises:
            RankLostError: a rank does not arrive. There is no retry after a failed first start or repeated failed
                restarts.
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
        """Label of a case in the ranks' NVTX ranges."""
        return {"name": entry.case.name, "question": entry.case.question, "number": self._numbers[id(entry)]}

    def _record_check(self, entry: CaseState, replies: Sequence[Message], limit: float) -> bool:
        """Record the worst error; return whether every rank's result is right.

        A right case counts as verified.
        """
        entry.check(_worst_error(replies), limit)
        if entry.failed is None:
            self._verified.add(self._numbers[id(entry)])
        return entry.failed is None

    def _is_verified(self, entry: CaseState) -> bool:
        """Return whether these ranks' results were right before."""
        return self._numbers[id(entry)] in self._verified


def _worst_error(replies: Sequence[Message]) -> float:
    """Largest error; NaN, which JSON lacks, if a rank found an unwritten element."""
    errors = [float(reply["error"]) for reply in replies if reply["error"] is not None]  # float("nan") parses "nan"
    return nan if any(map(isnan, errors)) else max(errors, default=nan)
