"""One of several ranks that share a GPU: it calls each backend at random moments and compares every result exactly.

Functional only. What ranks on one GPU take says something of its memory and of taking turns, nothing of a link.
"""

import json
import os
import random
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from comm.all_reduce import ALL_REDUCE
from comm.backend import Backend, Communicator
from comm.backends.all import BACKENDS
from comm.collective import Role, out_or_message
from comm.value import fill, predictable
from comm.world import World
from specs.errors import UserError

ELEMENTS = (8, 8192, 4096 + 8, 70_000, 524_288)
"""Of bf16: less than a tile, whole ones, a ragged end, 1 MiB which is the most of the one-shot; in turn."""
MOST_DELAY_CYCLES = 200_000
"""About 0.1 ms, some hundred times what a small all-reduce takes."""
MOST_DELAY_SECONDS = 2e-4
AGREED_EVERY = 10
"""Rounds that follow one another unseen by the host; then results are looked at, and the ranks agree to go on."""


def play(world: World, backend: Backend, rounds: int, deadline: float) -> dict[str, Any]:
    """Rounds of one backend until there were enough or the time, which all ranks agree on, is up."""
    if reason := backend.why_not(world):
        return {"not_run": reason}
    try:
        communicator = backend.connect(world)
    except UserError as refusal:
        return {"not_run": str(refusal)}
    calls = [prepare(world, backend, communicator, elements) for elements in ELEMENTS]
    chance, bad, played = random.Random(world.rank), list[int](), 0  # noqa: S311 - delays, no secrets
    while played < rounds and in_time(deadline):
        turns = range(played, min(rounds, played + AGREED_EVERY))
        counts = torch.stack([calls[turn % len(calls)](turn, chance) for turn in turns]).tolist()
        bad += [turn for turn, elements in zip(turns, counts, strict=True) if elements]
        played += len(turns)
    first = f"round {bad[0]}, {ELEMENTS[bad[0] % len(calls)]} elements" if bad else None
    return {"wanted": rounds, "right": played - len(bad), "wrong": len(bad), "first": first}


def prepare(
    world: World, backend: Backend, communicator: Communicator, elements: int
) -> Callable[[int, random.Random], torch.Tensor]:
    """Buffers of one size, and a round on them: how many elements are wrong, those that were not written among them."""
    role = Role(world.rank, world.ranks, elements, 1, "all_reduce" in backend.in_place)
    parts = ALL_REDUCE.parts(role)
    buffers = {name: communicator.buffer(part.elements, "bf16") for name, part in parts.items()}
    index = torch.arange(elements, device=world.device)

    def play_round(turn: int, chance: random.Random) -> torch.Tensor:
        value = predictable(world.ranks, turn)
        for name, part in parts.items():
            fill(buffers[name], value, part.holds)
        delay(world, chance)
        ALL_REDUCE.run(communicator, buffers, role)
        return (buffers[out_or_message(role)] != ALL_REDUCE.reference(value, index, role)).sum()

    return play_round


def delay(world: World, chance: random.Random) -> None:
    """Be late, on the stream or on a CPU in time."""
    if world.kind == "cuda":
        torch.cuda._sleep(chance.randrange(MOST_DELAY_CYCLES))
    else:
        time.sleep(chance.random() * MOST_DELAY_SECONDS)


def in_time(deadline: float) -> bool:
    """Whether every rank has time left: none leaves the others in a round that it does not play."""
    left = torch.tensor([int(time.monotonic() < deadline)])
    dist.all_reduce(left, op=dist.ReduceOp.MIN)
    return bool(left.item())


def join(rank: int, ranks: int, kind: str, port: int, generation: str, seconds: float) -> World:
    """The default group, as every rank of the suites has it."""
    world = World(rank, ranks, rank, ranks, kind, timeout_seconds=seconds, overlapping=True)
    if kind == "cuda":
        torch.cuda.set_device(world.device)
    limit = timedelta(seconds=seconds)
    store = PrefixStore(generation, TCPStore("127.0.0.1", port, is_master=False, timeout=limit))
    groups = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(groups, store=store, rank=rank, world_size=ranks, timeout=limit)
    return world


def main(argv: Sequence[str] | None = None) -> int:
    """Play all that is asked, and write what came of it after each."""
    parser = ArgumentParser(description=__doc__)
    for name, kind in {"rank": int, "ranks": int, "port": int, "until": float, "into": Path, "kind": str}.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("games", nargs="+", help="backend:rounds")
    asked = parser.parse_args(argv)
    left = max(1.0, asked.until - time.monotonic())  # a clock that all processes of a host share
    world = join(asked.rank, asked.ranks, asked.kind, asked.port, f"{asked.ranks} ranks", left)
    found: dict[str, Any] = {}
    games = [game.split(":") for game in asked.games]
    for index, (name, rounds) in enumerate(games):
        share = (asked.until - time.monotonic()) / (len(games) - index)
        found[name] = play(world, BACKENDS[name], int(rounds), time.monotonic() + share)
        fresh = asked.into.with_suffix(".tmp")
        fresh.write_text(json.dumps(found))
        fresh.replace(asked.into)
    in_time(0.0)  # whoever ends first takes nobody's memory away
    return 0


if __name__ == "__main__":
    os._exit(main())  # what libraries do at exit can hang when another rank is gone
