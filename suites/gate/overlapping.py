"""Program of one of several ranks that share a GPU: exact checks of each backend.

A rank calls each backend at random moments and compares every result exactly. All ranks are started once. The first
ranks run a trial in a process group of their own, while the rest wait. The check is functional only: times of ranks on
one GPU reflect its memory and its time slices, not a link.
"""

import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from comm.backend import Backend, Communicator, World
from comm.backends import BACKENDS
from comm.backends.torch_distributed import first_line
from comm.collective import Role, fill_buffer, message_values, result_buffer
from comm.collectives import ALL_REDUCE
from specs.errors import UserError

ELEMENTS = (8, 8192, 4096 + 8, 70_000, 524_288)
"""bf16 elements of the messages, in turn.

They are less than a tile, whole tiles, ragged ends, and 1 MiB, which is the most of the one-shot.
"""
MAX_DELAY_CYCLES = 200_000
"""Longest delay on the GPU: about 0.1 ms, some hundred times a small all-reduce."""
MAX_DELAY_SECONDS = 2e-4
ROUNDS_PER_SYNC = 10
"""Rounds without a check by the host.

After them the host reads the results, and the ranks agree to go on.
"""


class Trial(NamedTuple):
    """Rounds of one backend on the first `ranks` ranks."""

    ranks: int
    backend: str
    rounds: int


class RankTrials(NamedTuple):
    """Arguments of a rank.

    Attributes:
        rank, ranks: index of this rank, and number of ranks.
        kind: torch's device name, cpu or cuda.
        port: port of the store on this host through which the ranks find one another.
        deadline: end by the monotonic clock, which all processes of a host share.
        trials: trials to run.
        progress_path, log: files for results and for output.
    """

    rank: int
    ranks: int
    kind: str
    port: int
    deadline: float
    trials: tuple[Trial, ...]
    progress_path: Path
    log: Path


class ProgressFile:
    """File with a rank's current trial and its results so far.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._rows = path, list[dict[str, Any]]()

    def record(self, at: str | None, *rows: dict[str, Any]) -> None:
        """Record the current trial and the results of trials that ended."""
        self._rows += rows
        fresh = self._path.with_suffix(".tmp")
        fresh.write_text(json.dumps({"at": at, "rows": self._rows}))
        fresh.replace(self._path)


def run_trial(world: World, backend: Backend, rounds: int, deadline: float) -> dict[str, Any]:
    """Run rounds of one backend until all are done or the time is up.

    The ranks of the trial agree on the time.
    """
    if reason := backend.why_not(world):
        return {"not_run": reason}
    try:
        communicator = backend.connect(world)
    except UserError as refusal:
        return {"not_run": str(refusal)}
    calls = [prepare_round(world, backend, communicator, elements) for elements in ELEMENTS]
    chance, bad, played = random.Random(world.rank), list[int](), 0  # noqa: S311 - delays, no secrets
    while played < rounds and have_time_left(deadline, world.group):
        turns = range(played, min(rounds, played + ROUNDS_PER_SYNC))
        counts = torch.stack([calls[turn % len(calls)](turn, chance) for turn in turns]).tolist()
        bad += [turn for turn, elements in zip(turns, counts, strict=True) if elements]
        played += len(turns)
    first = f"round {bad[0]}, {ELEMENTS[bad[0] % len(calls)]} elements" if bad else None
    return {"wanted": rounds, "right": played - len(bad), "wrong": len(bad), "first": first}


def prepare_round(
    world: World, backend: Backend, communicator: Communicator, elements: int
) -> Callable[[int, random.Random], torch.Tensor]:
    """Make buffers of one size; return a function that runs a round on them.

    The function counts wrong elements, unwritten ones included.
    """
    role = Role(world.rank, world.ranks, elements, 1, "all_reduce" in backend.in_place)
    parts = ALL_REDUCE.buffers(role)
    buffers = {name: communicator.buffer(part.elements, "bf16") for name, part in parts.items()}
    index = torch.arange(elements, device=world.device)

    def play_round(turn: int, chance: random.Random) -> torch.Tensor:
        value = message_values(world.ranks, turn)
        for name, part in parts.items():
            fill_buffer(buffers[name], value, part.value_id)
        delay_randomly(world, chance)
        ALL_REDUCE.run(communicator, buffers, role)
        return (buffers[result_buffer(role)] != ALL_REDUCE.reference(value, index, role)).sum()

    return play_round


def delay_randomly(world: World, chance: random.Random) -> None:
    """Delay the stream, or on a CPU the process, by a random time."""
    if world.kind == "cuda":
        torch.cuda._sleep(chance.randrange(MAX_DELAY_CYCLES))
    else:
        time.sleep(chance.random() * MAX_DELAY_SECONDS)


def have_time_left(deadline: float, group: Any = None) -> bool:
    """Return whether every rank of a group has time left.

    All ranks agree, so none leaves the rest alone in a round.
    """
    left = torch.tensor([int(time.monotonic() < deadline)])
    dist.all_reduce(left, op=dist.ReduceOp.MIN, group=group)
    return bool(left.item())


def join_ranks(seat: RankTrials, seconds: float) -> World:
    """Join the default process group, as every rank of the suites does."""
    world = World(seat.rank, seat.ranks, seat.rank, seat.ranks, seat.kind, timeout_seconds=seconds, overlapping=True)
    if seat.kind == "cuda":
        torch.cuda.set_device(world.device)
    limit = timedelta(seconds=seconds)
    store = PrefixStore("ranks", TCPStore("127.0.0.1", seat.port, is_master=False, timeout=limit))
    carriers = _torch_backend(seat.kind)
    dist.init_process_group(carriers, store=store, rank=seat.rank, world_size=seat.ranks, timeout=limit)
    return world


def make_subworld(world: World, ranks: int) -> World:
    """World of the first `ranks` ranks alone.

    Every rank has to call this, also a rank outside that world.
    """
    if ranks == world.ranks:
        return world
    limit = timedelta(seconds=world.timeout_seconds)
    group = dist.new_group(list(range(ranks)), backend=_torch_backend(world.kind), timeout=limit)
    return replace(world, ranks=ranks, local_ranks=ranks, group=group)


def _torch_backend(kind: str) -> str:
    return "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"


def run_trials(world: World, trials: Sequence[Trial], until: float, progress: ProgressFile) -> None:
    """Run the trials in turn, each with an equal part of the remaining time.

    Raises:
        RuntimeError: the GPU reported a fault, which the progress file holds; this process can run no more trials.
    """
    progress.record(None)
    worlds = {ranks: make_subworld(world, ranks) for ranks in dict.fromkeys(game.ranks for game in trials)}
    for index, game in enumerate(trials):
        deadline = time.monotonic() + (until - time.monotonic()) / (len(trials) - index)
        if world.rank < game.ranks:
            row = {"ranks": game.ranks, "backend": game.backend}
            progress.record(f"{game.backend} with {game.ranks}")
            try:
                found = run_trial(worlds[game.ranks], BACKENDS[game.backend], game.rounds, deadline)
            except RuntimeError as error:
                if "CUDA error" in str(error) and "out of memory" not in str(error):
                    progress.record(f"{game.backend} with {game.ranks}", row | {"fault": first_line(error)})
                raise
            progress.record(None, row | found)
        have_time_left(deadline)  # ranks that waited go on with the ranks of the trial


def main(seat: RankTrials) -> None:
    """Run all trials of a rank."""
    torch.set_num_threads(1)  # the ranks share the host's cores
    left = max(1.0, seat.deadline - time.monotonic())
    progress = ProgressFile(seat.progress_path)
    progress.record("joining the others")
    run_trials(join_ranks(seat, left), seat.trials, seat.deadline, progress)
    have_time_left(0.0)  # ranks end together: other ranks may still use this one's memory


def run_rank(seat: RankTrials, play_seat: Callable[[RankTrials], None] = main) -> NoReturn:
    """Run a rank and end at once.

    Libraries can hang at exit when another rank is gone.
    """
    with seat.log.open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    status = 0
    try:
        play_seat(seat)
    except Exception as error:
        status = 1
        traceback.print_exc()
        print(f"{type(error).__name__}: {first_line(error)}", file=sys.stderr)  # noqa: T201 - the reason comes last
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
