"""Ranks that a launcher started, as rank 0's process sees them: it leads, and the others keep a rank each for it."""

import tempfile
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path

from specs.errors import UserError
from suites.workers.launcher import Place, listen, reach, to_wire
from suites.workers.process import BEAT_SECONDS, SILENT_SECONDS, Keeper, Link, Message, RankLostError, Wire

# What every process but rank 0's does under a launcher: it keeps its rank's process and does as the leader says.


def follow(place: Place, plan: str, timeout_seconds: float, environment: dict[str, str]) -> None:
    """Keep one rank's process for the leader until it says that the run is over.

    Raises:
        UserError: the leader cannot be reached, refuses, or falls silent.
    """
    wire = reach(place, timeout_seconds)
    wire.tell(
        {
            "hello": True,
            "rank": place.rank,
            "ranks": place.ranks,
            "local_rank": place.local_rank,
            "local_ranks": place.local_ranks,
            "plan": plan,
        }
    )
    keeper: Keeper | None = None
    silent = f"at {place.address}:{place.port} has said nothing"
    why = "another program may listen there: set MASTER_PORT to a free port, the same on every rank"
    with tempfile.TemporaryDirectory(prefix="shardbench-ranks-") as logs:
        log, heard, beaten, generation = Path(logs) / f"rank-{place.rank}.log", time.monotonic(), 0.0, 0
        try:
            while True:
                both = [wire.connection, *([keeper.wire.connection] if keeper else [])]
                ready = wait(both, timeout=BEAT_SECONDS)
                now = time.monotonic()
                if wire.connection in ready:
                    heard, command = now, wire.hear()
                    silent, why = "has been silent", "its host or the network is gone"
                    if command is None:
                        raise UserError(f"{place}: rank 0's process is gone; what it measured is in its journal")
                    if "refused" in command:
                        raise UserError(command["refused"])
                    if command["do"] == "over":
                        wire.connection.poll(timeout_seconds)  # launchers end all with the first
                        return
                    generation = command.get("generation", generation)
                    keeper = _obey(command, keeper, place, environment, log)
                if now - heard > timeout_seconds:
                    raise UserError(f"{place}: rank 0 {silent} for {timeout_seconds:g} s; {why}")
                if keeper and keeper.wire.connection in ready:
                    message = keeper.hear()
                    wire.tell({**message, "generation": generation})
                    if "died" in message:
                        keeper.end()
                        keeper = None
                if now - beaten > BEAT_SECONDS:
                    beaten = now
                    wire.tell({"keeper": place.rank})
        finally:
            if keeper:
                keeper.end()
            wire.close()


def _obey(
    command: Message, keeper: Keeper | None, place: Place, environment: dict[str, str], log: Path
) -> Keeper | None:
    """Start or stop the rank's process, or pass a command on to it."""
    if command["do"] == "start":
        return Keeper(place.rank, environment, log, (place.local_rank, place.local_ranks))
    if command["do"] == "stop":
        if keeper:
            keeper.end()
        return None
    if command["do"] != "beat" and keeper:
        keeper.tell(command)
    return keeper


HELLO_SECONDS = 5.0


class RemoteRank:
    """A rank whose process another process keeps."""

    def __init__(self, wire: Wire, hello: Message) -> None:
        self.wire, self.rank = wire, int(hello["rank"])
        self.local = int(hello["local_rank"]), int(hello["local_ranks"])
        self.gone, self.generation, self._heard = "", 0, time.monotonic()

    def tell(self, message: Message) -> bool:
        """Send through its keeper."""
        return self.wire.tell(message)

    def hear(self) -> Message:
        """What the rank or its keeper says."""
        message = self.wire.hear()
        if message is None:
            self.gone = f"rank {self.rank}'s process is gone"
            return {"died": "is gone: the process that kept it closed the connection"}
        self._heard = time.monotonic()
        return message if message.get("generation") == self.generation else {"old": message}

    def start(self) -> None:
        """Have a process started.

        Raises:
            RankLostError: its keeper is gone.
        """
        self.generation += 1
        if self.gone or not self.wire.tell({"do": "start", "generation": self.generation}):
            raise RankLostError(self.gone or f"rank {self.rank}'s process is gone")

    def give_up(self) -> None:
        """Its keeper tells once a second that it is there; if that has ended too, its host cannot be reached."""
        if time.monotonic() - self._heard > SILENT_SECONDS:
            self.gone = f"rank {self.rank}'s host does not answer any more"

    def end(self) -> None:
        """Have its process ended; the keeper stays."""
        self.wire.tell({"do": "stop"})


class JoinedRanks:
    """The leader's side: its own rank beside those of the others.

    Args:
        place: of this process, rank 0.
        plan: what the cases of this run are told apart from another's by.
        timeout_seconds: how long the others are waited for.

    Raises:
        UserError: the port is taken, a rank does not come, or comes with other cases or another count of ranks.
    """

    def __init__(self, place: Place, plan: str, timeout_seconds: float, environment: dict[str, str]) -> None:
        self.ranks, self.address, self.launcher = place.ranks, place.address, place.launcher
        self._place, self._environment = place, environment
        self._logs = tempfile.TemporaryDirectory(prefix="shardbench-ranks-")
        self._others: dict[int, RemoteRank] = {}
        self._over = threading.Event()
        deadline = time.monotonic() + timeout_seconds
        with listen(place, timeout_seconds) as server:
            while len(self._others) < place.ranks - 1:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    missing = sorted(set(range(1, place.ranks)) - set(self._others))
                    self._refuse(
                        f"{place.ranks - len(missing)} of {place.ranks} ranks came within {timeout_seconds:g} s; "
                        f"rank {', '.join(map(str, missing))} did not: start as many as the launcher's world size says"
                    )
                self._welcome(to_wire(connection), plan)
        threading.Thread(target=self._beat, daemon=True).start()

    def _welcome(self, wire: Wire, plan: str) -> None:
        hello = wire.hear() if wire.connection.poll(HELLO_SECONDS) else None
        if hello is None or "hello" not in hello:
            wire.close()  # something else knocked at the port
            return
        rank = RemoteRank(wire, hello)
        self._add(rank)
        if hello["ranks"] != self.ranks:
            self._refuse(
                f"wrong world size: rank {rank.rank} was started as one of {hello['ranks']}, rank 0 as one of "
                f"{self.ranks}; start all ranks with the same count"
            )
        if hello["plan"] != plan:
            self._refuse(
                f"rank {rank.rank} has other cases than rank 0; give every rank the same options and the same commit"
            )

    def _add(self, rank: RemoteRank) -> None:
        if rank.rank in self._others or rank.rank == 0:
            rank.wire.tell({"refused": f"there is a rank {rank.rank} already"})
            self._refuse(f"two processes say they are rank {rank.rank}; each rank is started once")
        self._others[rank.rank] = rank

    def _refuse(self, reason: str) -> None:
        for other in self._others.values():
            other.tell({"refused": reason})
        raise UserError(reason)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            for other in self._others.values():
                other.tell({"do": "beat"})

    def start(self, first: Mapping[str, str]) -> list[Link]:
        """This host's process, and every other keeper's."""
        for other in self._others.values():
            other.start()
        local = self._place.local_rank, self._place.local_ranks
        log = Path(self._logs.name) / "rank-0.log"
        links: list[Link] = [Keeper(0, {**self._environment, **first}, log, local)]
        return links + [self._others[rank] for rank in sorted(self._others)]

    def close(self) -> None:
        """Let the other processes go."""
        self._over.set()
        for other in self._others.values():
            other.tell({"do": "over"})  # the connection stays until this process ends: they wait for that
        self._logs.cleanup()
