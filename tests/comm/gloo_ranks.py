"""Runs every collective that gloo carries once on this rank and prints its error: RANK RANKS PORT FOLDER."""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from comm.backend import World
from comm.backends.torch_distributed import GLOO
from comm.collective import Role, fill_buffer, message_values, relative_error
from comm.collectives import COLLECTIVES

HIDDEN = 96


def run(communicator, collective, dtype, elements):
    """The error of one call; None for a rank that is given nothing."""
    world = communicator.world
    row = HIDDEN if "norm" in collective.op else 1
    in_place = collective.method in GLOO.in_place
    role = Role(world.rank, world.ranks, elements, row, in_place, source=world.ranks - 1, target=0)
    value, parts = message_values(world.ranks, 4), collective.buffers(role)
    buffers = {name: communicator.buffer(part.elements, dtype) for name, part in parts.items()}
    for name, part in parts.items():
        fill_buffer(buffers[name], value, part.value_id)
    communicator.barrier()
    collective.run(communicator, buffers, role)
    return relative_error(collective, buffers, value, role)


def main():
    rank, ranks, port = map(int, sys.argv[1:4])
    folder = sys.argv[4]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    communicator = GLOO.connect(World(rank, ranks, rank, ranks, "cpu"))
    came = Path(folder) / "came"
    if rank == ranks - 1:
        time.sleep(0.3)
        came.touch()
    communicator.barrier()
    waited = came.exists()
    errors = {
        f"{op} {dtype}": run(communicator, collective, dtype, elements)
        for op, collective in COLLECTIVES.items()
        if collective.method in GLOO.methods
        for dtype, elements in (("bf16", HIDDEN * 700 * ranks), ("fp32", HIDDEN * ranks), ("fp16", HIDDEN * 3 * ranks))
    }
    print(json.dumps({"waited": waited, "errors": errors}))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
