"""Ranks of a launcher: rank 0's process leads, the rest keep a rank each.

The keeper of a rank starts, watches and ends its process, and passes on commands and replies.
"""

import tempfile
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path

from specs.errors import UserError
from suites.workers.launcher import LaunchedRank, connect_to_leader, listen_as_leader, to_channel
from suites.workers.process import (
    HEARTBEAT_SECONDS,
    HEARTBEAT_TIMEOUT_SECONDS,
    Message,
    MessageChannel,
    RankLostError,
    WorkerHandle,
    WorkerProcess,
)

# Keepers: every launched process except rank 0's


def run_follower(launched: LaunchedRank, plan: str, timeout_seconds: float, environment: dict[str, str]) -> None:
    """Keep one rank's process for the leader until the run is over.

    Raises:
        UserError: the leader cannot be reached, refuses, or is silent.
    """
    channel = connect_to_leader(launched, timeout_seconds)
    channel.send(
        {
            "hello": True,
            "rank": launched.rank,
            "ranks": launched.ranks,
            "local_rank": launched.local_rank,
            "local_ranks": launched.local_ranks,
            "plan": plan,
        }
    )
    worker: WorkerProcess | None = None
    silent = f"at {launched.address}:{launched.port} has said nothing"
    why = "another program may listen there: set MASTER_PORT to a free port, the same on every rank"
    with tempfile.TemporaryDirectory(prefix="shardbench-ranks-") as logs:
        log, heard, beaten, generation = Path(logs) / f"rank-{launched.rank}.log", time.monotonic(), 0.0, 0
        try:
            while True:
                both = [channel.connection, *([worker.wire.connection] if worker else [])]
                ready = wait(both, timeout=HEARTBEAT_SECONDS)
                now = time.monotonic()
                if channel.connection in ready:
                    heard, command = now, channel.receive()
                    silent, why = "has been silent", "its host or the network is gone"
                    if command is None:
                        raise UserError(f"{launched}: rank 0's process is gone; what it measured is in its journal")
                    if "refused" in command:
                        raise UserError(command["refused"])
                    if command["do"] == "over":
                        channel.connection.poll(timeout_seconds)  # launchers end all processes with the first that ends
                        return
                    generation = command.get("generation", generation)
                    worker = _execute_command(command, worker, launched, environment, log)
                if now - heard > timeout_seconds:
                    raise UserError(f"{launched}: rank 0 {silent} for {timeout_seconds:g} s; {why}")
                if worker and worker.wire.connection in ready:
                    message = worker.receive()
                    channel.send({**message, "generation": generation})
                    if "died" in message:
                        worker.end()
                        worker = None
                if now - beaten > HEARTBEAT_SECONDS:
                    beaten = now
                    channel.send({"keeper": launched.rank})
        finally:
            if worker:
                worker.end()
            channel.close()


def _execute_command(
    command: Message, worker: WorkerProcess | None, launched: LaunchedRank, environment: dict[str, str], log: Path
) -> WorkerProcess | None:
    """Start or stop the rank's process, or pass a command on to it."""
    if command["do"] == "start":
        return WorkerProcess(launched.rank, environment, log, (launched.local_rank, launched.local_ranks))
    if command["do"] == "stop":
        if worker:
            worker.end()
        return None
    if command["do"] != "beat" and worker:
        worker.send(command)
    return worker


HANDSHAKE_SECONDS = 5.0


class RemoteWorker:
    """Rank whose process another process keeps."""

    def __init__(self, wire: MessageChannel, hello: Message) -> None:
        self.wire, self.rank = wire, int(hello["rank"])
        self.local = int(hello["local_rank"]), int(hello["local_ranks"])
        self.gone, self.generation, self._heard = "", 0, time.monotonic()

    def send(self, message: Message) -> bool:
        """Send through the rank's keeper."""
        return self.wire.send(message)

    def receive(self) -> Message:
        """Wait for a message of the rank or its keeper."""
        message = self.wire.receive()
        if message is None:
            self.gone = f"rank {self.rank}'s process is gone"
            return {"died": "is gone: the process that kept it closed the connection"}
        self._heard = time.monotonic()
        return message if message.get("generation") == self.generation else {"old": message}

    def start(self) -> None:
        """Tell the keeper to start a process.

        Raises:
            RankLostError: the keeper is gone.
        """
        self.generation += 1
        if self.gone or not self.wire.send({"do": "start", "generation": self.generation}):
            raise RankLostError(self.gone or f"rank {self.rank}'s process is gone")

    def mark_silent(self) -> None:
        """Mark the host as unreachable if the keeper's heartbeat has stopped too.

        The keeper sends it once a second.
        """
        if time.monotonic() - self._heard > HEARTBEAT_TIMEOUT_SECONDS:
            self.gone = f"rank {self.rank}'s host does not answer any more"

    def end(self) -> None:
        """Tell the keeper to end its process; the keeper stays."""
        self.wire.send({"do": "stop"})


class LeaderSpawner:
    """Starter of the leader's rank, and of the ranks that other processes keep.

    Args:
        launched: rank of this process, which is 0.
        plan: digest of the run's cases.
        timeout_seconds: limit of the wait for the other ranks.

    Raises:
        UserError: the port is taken, a rank does not come, or has other cases or another number of ranks.
    """

    def __init__(self, launched: LaunchedRank, plan: str, timeout_seconds: float, environment: dict[str, str]) -> None:
        self.ranks, self.address, self.launcher = launched.ranks, launched.address, launched.launcher
        self._launched, self._environment = launched, environment
        self._logs = tempfile.TemporaryDirectory(prefix="shardbench-ranks-")
        self._others: dict[int, RemoteWorker] = {}
        self._over = threading.Event()
        deadline = time.monotonic() + timeout_seconds
        with listen_as_leader(launched, timeout_seconds) as server:
            while len(self._others) < launched.ranks - 1:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    missing = sorted(set(range(1, launched.ranks)) - set(self._others))
                    self._refuse(
                        f"{launched.ranks - len(missing)} of {launched.ranks} ranks came within {timeout_seconds:g} s; "
                        f"rank {', '.join(map(str, missing))} did not: start as many as the launcher's world size says"
                    )
                self._accept_rank(to_channel(connection), plan)
        threading.Thread(target=self._send_heartbeats, daemon=True).start()

    def _accept_rank(self, wire: MessageChannel, plan: str) -> None:
        hello = wire.receive() if wire.connection.poll(HANDSHAKE_SECONDS) else None
        if hello is None or "hello" not in hello:
            wire.close()  # another program connected to the port
            return
        rank = RemoteWorker(wire, hello)
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

    def _add(self, rank: RemoteWorker) -> None:
        if rank.rank in self._others or rank.rank == 0:
            rank.wire.send({"refused": f"there is a rank {rank.rank} already"})
            self._refuse(f"two processes say they are rank {rank.rank}; each rank is started once")
        self._others[rank.rank] = rank

    def _refuse(self, reason: str) -> None:
        for other in self._others.values():
            other.send({"refused": reason})
        raise UserError(reason)

    def _send_heartbeats(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            for other in self._others.values():
                other.send({"do": "beat"})

    def start(self, first: Mapping[str, str]) -> list[WorkerHandle]:
        """Start this host's process, and the process of every other keeper."""
        for other in self._others.values():
            other.start()
        local = self._launched.local_rank, self._launched.local_ranks
        log = Path(self._logs.name) / "rank-0.log"
        links: list[WorkerHandle] = [WorkerProcess(0, {**self._environment, **first}, log, local)]
        return links + [self._others[rank] for rank in sorted(self._others)]

    def close(self) -> None:
        """End the run for the other processes."""
        self._over.set()
        for other in self._others.values():
            other.send({"do": "over"})  # the connection stays open until this process ends: the keepers wait for that
        self._logs.cleanup()
