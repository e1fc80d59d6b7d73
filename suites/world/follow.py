"""What every process but rank 0's does under a launcher: it keeps its rank's process and does as the leader says."""

import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path

from specs.errors import UserError
from suites.world.keeper import Keeper
from suites.world.meeting import reach
from suites.world.place import Place
from suites.world.wire import BEAT_SECONDS, Message


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
