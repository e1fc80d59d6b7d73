"""Rank processes that run the one-shot kernel at once, under the interpreter, on memory that all of them map.

A program of its own, so that it can fork before torch has threads: python shared_memory_ranks.py FOLDER JOBS, where
JOBS is a JSON list of {"name", "module", "ranks", "rounds", "dtype", "seconds"}. It prints one JSON object: name to
what came of it.
"""

import importlib.util
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
from triton.runtime.interpreter import InterpreterBuilder

from tests.kernels.interpreter import interpreted

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ELEMENTS = (8, 2048, 5000, 4104)
"""One tile with a ragged end, whole ones, several: calls of different sizes share channels."""
FIRST_EPOCH = 2**31 - 25
"""So that the epoch's 32 bits wrap in the middle."""
MOST_DELAY_SECONDS = 2e-3


def main(folder: Path, jobs: list[dict]) -> None:
    torch.set_num_threads(1)
    found = {one["name"]: run(folder / one["name"], SimpleNamespace(**one)) for one in jobs}
    sys.stdout.write(json.dumps(found))


def run(folder: Path, job: SimpleNamespace) -> dict:
    """Fork the ranks, wait for them, kill those that are late."""
    folder.mkdir()
    module = load(job.module, job.name)
    for rank in range(job.ranks):
        with (folder / f"{rank}.memory").open("wb") as shared:
            shared.truncate(module.buffer_bytes(job.ranks))
    pids = [fork(folder, job, module, rank) for rank in range(job.ranks)]
    left, deadline = set(pids), time.monotonic() + job.seconds
    while left and time.monotonic() < deadline:
        left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]}
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    told = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {"late": len(left), "right": [one["right"] for one in told], "wrong": sum(one["wrong"] for one in told)}


def load(path: str, name: str):
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def fork(folder: Path, job: SimpleNamespace, module, rank: int) -> int:
    if pid := os.fork():
        return pid
    try:
        warnings.simplefilter("ignore")  # of overflow, where the epoch wraps
        with interpreted(module):
            found = play(folder, job, module, rank)
        (folder / f"{rank}.json").write_text(json.dumps(found))
        os._exit(0)
    except BaseException as error:
        sys.stderr.write(f"rank {rank} of {job.name}: {error!r}\n")
        sys.stderr.flush()
        os._exit(1)


def play(folder: Path, job: SimpleNamespace, module, rank: int) -> dict:
    """All rounds of one rank. Each maps the memory in another order, so that its addresses are its own."""
    chance = random.Random(rank)
    delay_atomics(chance)
    size, maps = module.buffer_bytes(job.ranks), {}
    for other in sorted(range(job.ranks), key=lambda one: (one - rank) % job.ranks):
        maps[other] = torch.from_file(str(folder / f"{other}.memory"), shared=True, size=size, dtype=torch.uint8)
    addresses = [maps[other].data_ptr() for other in range(job.ranks)]
    one_shot = module.OneShotAllReduce(rank, addresses, torch.device("cpu"), FIRST_EPOCH)
    right = wrong = 0
    for turn in range(job.rounds):
        elements = ELEMENTS[turn % len(ELEMENTS)]
        out = torch.full((elements,), torch.nan, dtype=DTYPES[job.dtype])
        one_shot(message(rank, turn, elements, job.dtype), out)
        if torch.equal(out, expected(job.ranks, turn, elements, job.dtype)):
            right += 1
        else:
            wrong += 1
        time.sleep(chance.random() * MOST_DELAY_SECONDS)
    return {"right": right, "wrong": wrong}


def message(rank: int, turn: int, elements: int, dtype: str) -> torch.Tensor:
    """In fp32 normals, whose sum depends on the order; in bf16 integers, whose sum the interpreter rounds rightly."""
    generator = torch.Generator().manual_seed(1000 * turn + rank)
    if dtype == "fp32":
        return torch.randn(elements, generator=generator)
    return torch.randint(-30, 31, (elements,), generator=generator).to(DTYPES[dtype])


def expected(ranks: int, turn: int, elements: int, dtype: str) -> torch.Tensor:
    """In fp32, one rank after another."""
    total = torch.zeros(elements)
    for rank in range(ranks):
        total += message(rank, turn, elements, dtype).float()
    return total.to(DTYPES[dtype])


def delay_atomics(chance: random.Random) -> None:
    """Each flag that is raised or read takes its time: so ranks meet one another at every point of the protocol."""
    stock = InterpreterBuilder.create_atomic_rmw

    def delayed(self, *arguments):
        found = stock(self, *arguments)
        time.sleep(chance.random() * MOST_DELAY_SECONDS)
        return found

    InterpreterBuilder.create_atomic_rmw = delayed


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
