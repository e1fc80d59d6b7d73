"""Which of how many processes this is: started alone, or by torchrun, srun or mpirun."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from specs.errors import UserError

PORT = 29_500
"""Where rank 0 listens unless MASTER_PORT says otherwise: torch's own default."""
MOST_PORT = 65_535
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    "mpirun": tuple(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")),
    "mpirun (MPICH)": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}
"""Variables by which each launcher tells a process its rank, the ranks, and both on its host."""
NO_STEP = ("4294967291", "4294967290", "batch", "interactive")
"""What Slurm calls the step of a batch script, by number in older versions."""


class Place(NamedTuple):
    """A process among those that a launcher started.

    Attributes:
        rank, ranks: this one of how many.
        local_rank, local_ranks: the same on this host.
        launcher: torchrun, srun or mpirun.
        address, port: where rank 0 can be reached.
    """

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    launcher: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.ranks}"


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """This process's place; None where nobody started several.

    Raises:
        UserError: what the launcher says is no number or contradicts itself, or where rank 0 is cannot be known.
    """
    for launcher, names in LAUNCHERS.items():
        if names[0] in environment and names[1] in environment and (launcher != "srun" or _in_step(environment)):
            return _read(launcher, names, environment)
    return None


def _in_step(environment: Mapping[str, str]) -> bool:
    """Whether srun started it: inside an allocation a plain shell has the job's variables too."""
    return environment.get("SLURM_STEP_ID", "batch") not in NO_STEP


def _read(launcher: str, names: tuple[str, ...], environment: Mapping[str, str]) -> Place | None:
    rank, ranks = (_number(name, environment[name]) for name in names[:2])
    if ranks == 1:
        return None
    if rank >= ranks:
        raise UserError(f"{names[0]} is {rank} where {names[1]} is {ranks}; ranks go from 0 to {ranks - 1}")
    local_rank = _number(names[2], environment.get(names[2], str(rank)))
    # Slurm's 4(x2),3 says four on each of two hosts, then three
    local_ranks = _number(names[3], environment.get(names[3], str(ranks)).split("(")[0].split(",")[0])
    short = launcher.split(" ")[0]
    address = _address(short, environment, alone=local_ranks == ranks)
    return Place(rank, ranks, local_rank, local_ranks, short, address, _port(short, environment))


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{name} is {text!r}, not a whole number; start the ranks with torchrun, srun or mpirun")
    return int(text)


def _address(launcher: str, environment: Mapping[str, str], *, alone: bool) -> str:
    if address := environment.get("MASTER_ADDR"):
        return address
    if alone:
        return "127.0.0.1"
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    if launcher == "srun" and nodes:
        return first_host(nodes)
    raise UserError(f"{launcher} does not say where rank 0 is; set MASTER_ADDR to its host, on every rank")


def first_host(nodes: str) -> str:
    """The first of Slurm's node list: gpu[003-010,12],login -> gpu003."""
    found = re.match(r"(?:[^\[\],]|\[\d[^\]]*\])+", nodes)
    if not found:
        raise UserError(f"SLURM_STEP_NODELIST is {nodes!r}, which names no host; set MASTER_ADDR to that of rank 0")
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", found[0])


def _port(launcher: str, environment: Mapping[str, str]) -> int:
    if "MASTER_PORT" in environment:
        port = _number("MASTER_PORT", environment["MASTER_PORT"])
        if not 0 < port <= MOST_PORT:
            raise UserError(f"MASTER_PORT is {port}; ports go from 1 to {MOST_PORT}")
        return port
    job = environment.get("SLURM_JOB_ID", "") if launcher == "srun" else ""
    return 20_000 + int(job) % 20_000 if job.isdecimal() else PORT  # two jobs on one host must not meet
