"""Ranks of a run: launcher variables, connection to rank 0, number and kind.

A process starts alone, or by torchrun, srun or mpirun.
"""

import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import psutil
import torch
from torch.distributed import DistError, Store, TCPStore  # type: ignore[attr-defined]

from comm.backend import World
from specs.errors import UserError
from suites.environment import gpu_links
from suites.workers.process import MessageChannel

DEFAULT_PORT = 29_500
"""Default of MASTER_PORT, where rank 0 listens: torch's own default."""
MAX_PORT = 65_535
LAUNCHER_VARIABLES = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    "mpirun": tuple(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")),
    "mpirun (MPICH)": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}
"""Variables of rank and number of ranks, in total and on this host, by launcher."""
NON_SRUN_STEP_IDS = ("4294967291", "4294967290", "batch", "interactive")
"""Slurm's names for the step of a batch script; older versions use the numbers."""


class LaunchedRank(NamedTuple):
    """Process that a launcher started.

    Attributes:
        rank, ranks: rank of this process, and number of ranks.
        local_rank, local_ranks: the same on this host.
        launcher: torchrun, srun or mpirun.
        address, port: address and port of rank 0.
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


def find_launched_rank(environment: Mapping[str, str] = os.environ) -> LaunchedRank | None:
    """Return this process's rank, or None if no launcher started several.

    Raises:
        UserError: a launcher's variable is no number, variables contradict each other, or rank 0's address is unknown.
    """
    for launcher, names in LAUNCHER_VARIABLES.items():
        if names[0] in environment and names[1] in environment and (launcher != "srun" or _is_srun_step(environment)):
            return _read_launched_rank(launcher, names, environment)
    return None


def _is_srun_step(environment: Mapping[str, str]) -> bool:
    """True if srun started this process, and not a shell inside an allocation.

    The shell has the job's variables too.
    """
    return environment.get("SLURM_STEP_ID", "batch") not in NON_SRUN_STEP_IDS


def _read_launched_rank(launcher: str, names: tuple[str, ...], environment: Mapping[str, str]) -> LaunchedRank | None:
    rank, ranks = (_parse_number(name, environment[name]) for name in names[:2])
    if ranks == 1:
        return None
    if rank >= ranks:
        raise UserError(f"{names[0]} is {rank} where {names[1]} is {ranks}; ranks go from 0 to {ranks - 1}")
    local_rank = _parse_number(names[2], environment.get(names[2], str(rank)))
    # Slurm's 4(x2),3 means four on each of two hosts, then three
    local_ranks = _parse_number(names[3], environment.get(names[3], str(ranks)).split("(")[0].split(",")[0])
    short = launcher.split(" ")[0]
    address = _leader_address(short, environment, alone=local_ranks == ranks)
    return LaunchedRank(rank, ranks, local_rank, local_ranks, short, address, _leader_port(short, environment))


def _parse_number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{name} is {text!r}, not a whole number; start the ranks with torchrun, srun or mpirun")
    return int(text)


def _leader_address(launcher: str, environment: Mapping[str, str], *, alone: bool) -> str:
    if address := environment.get("MASTER_ADDR"):
        return address
    if alone:
        return "127.0.0.1"
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    if launcher == "srun" and nodes:
        return first_host(nodes)
    raise UserError(f"{launcher} does not say where rank 0 is; set MASTER_ADDR to its host, on every rank")


def first_host(nodes: str) -> str:
    """First host of Slurm's node list: gpu[003-010,12],login -> gpu003."""
    found = re.match(r"(?:[^\[\],]|\[\d[^\]]*\])+", nodes)
    if not found:
        raise UserError(f"SLURM_STEP_NODELIST is {nodes!r}, which names no host; set MASTER_ADDR to that of rank 0")
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", found[0])


def _leader_port(launcher: str, environment: Mapping[str, str]) -> int:
    if "MASTER_PORT" in environment:
        port = _parse_number("MASTER_PORT", environment["MASTER_PORT"])
        if not 0 < port <= MAX_PORT:
            raise UserError(f"MASTER_PORT is {port}; ports go from 1 to {MAX_PORT}")
        return port
    job = environment.get("SLURM_JOB_ID", "") if launcher == "srun" else ""
    return 20_000 + int(job) % 20_000 if job.isdecimal() else DEFAULT_PORT  # two jobs on one host need different ports


# Connection of the launched processes to rank 0
#
# Under torchrun its store holds rank 0's port. Under srun and mpirun rank 0 listens at MASTER_ADDR and MASTER_PORT.

RETRY_SECONDS = 0.2


def listen_as_leader(leader: LaunchedRank, timeout_seconds: float) -> socket.socket:
    """Open rank 0's listening socket.

    Raises:
        UserError: the port is taken, or the address is not this host's.
    """
    port = 0 if _has_torchrun_agent() else leader.port
    try:
        server = socket.create_server((leader.address, port), backlog=leader.ranks)
    except OSError as error:
        raise UserError(
            f"rank 0 cannot listen on {leader.address}:{port} ({error.strerror}); set MASTER_PORT to a free "
            "port and MASTER_ADDR to an address of rank 0's host, the same on every rank"
        ) from error
    if _has_torchrun_agent():
        _torchrun_store(leader, timeout_seconds).set(_port_key(), str(server.getsockname()[1]))
    return server


def connect_to_leader(launched: LaunchedRank, timeout_seconds: float) -> MessageChannel:
    """Connect to rank 0, which may start later.

    Raises:
        UserError: rank 0 cannot be reached in time.
    """
    deadline, port = time.monotonic() + timeout_seconds, launched.port
    why = ""
    if _has_torchrun_agent():
        port = int(_torchrun_store(launched, timeout_seconds).get(_port_key()))
    while (left := deadline - time.monotonic()) > 0:
        try:
            return to_channel(socket.create_connection((launched.address, port), timeout=left))
        except OSError as error:
            why = str(error.strerror or error)
            time.sleep(RETRY_SECONDS)
    raise UserError(
        f"{launched}: rank 0 at {launched.address}:{port} cannot be reached within {timeout_seconds:g} s ({why}); "
        "is it started, and are MASTER_ADDR and MASTER_PORT right?"
    )


def to_channel(connection: socket.socket) -> MessageChannel:
    """Wrap a socket for whole messages; TCP_NODELAY sends short messages at once."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return MessageChannel(Connection(connection.detach()))


def _has_torchrun_agent() -> bool:
    """Return whether torchrun's agent itself listens at the port."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _torchrun_store(launched: LaunchedRank, timeout_seconds: float) -> Store:
    try:
        return TCPStore(launched.address, launched.port, is_master=False, timeout=timedelta(seconds=timeout_seconds))
    except (RuntimeError, DistError) as error:
        raise UserError(
            f"{launched}: torchrun's store at {launched.address}:{launched.port} cannot be reached within "
            f"{timeout_seconds:g} s"
        ) from error


def _port_key() -> str:
    return f"shardbench/{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def network_interface(launched: LaunchedRank) -> str | None:
    """Network interface that reaches rank 0's host, or None if unknown.

    gloo would look up the address of this host's own name, which often is the loopback's.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((launched.address, launched.port))  # sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return None
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if any(one.address == own for one in addresses)), None)


# Number and kind of a run's ranks, known before any starts

DEFAULT_CPU_RANKS = 2
"""Default number of ranks on a CPU: the fewest that communicate."""
MAX_CPU_RANKS = 64
LOOPBACK_INTERFACE = next((name for name in ("lo", "lo0") if name in psutil.net_if_addrs()), None)


@dataclass(frozen=True)
class RankPlan:
    """Ranks of a run.

    Attributes:
        count: number of ranks; 1 if there is no communication.
        kind: torch's device name, cpu or cuda.
        launched_rank: this process's rank, if a launcher started several.
    """

    count: int
    kind: str
    launched_rank: LaunchedRank | None = None

    @property
    def world(self) -> World:
        """World as rank 0 sees it, for planning."""
        local = self.launched_rank.local_ranks if self.launched_rank else self.count
        return World(0, self.count, 0, local, self.kind, self.launched_rank.launcher if self.launched_rank else "own")

    @property
    def is_leader(self) -> bool:
        """True for the process that measures and writes."""
        return self.launched_rank is None or self.launched_rank.rank == 0

    def why_not(self) -> str | None:
        """Return why nothing can be measured between ranks, or None."""
        if self.count > 1:
            return None
        return "one GPU is one rank, with nobody to talk to; `make gpu` checks ranks that share a GPU"


def rank_environment(ranks: RankPlan) -> dict[str, str]:
    """Variables of the ranks' processes: the network interface for gloo.

    It is the loopback on one host, else the interface that reaches rank 0. By default gloo looks up this host's name.
    It may not resolve, or give an address that other hosts cannot reach.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return {}
    name = network_interface(ranks.launched_rank) if ranks.launched_rank else LOOPBACK_INTERFACE
    return {"GLOO_SOCKET_IFNAME": name} if name else {}


def rank_info(ranks: RankPlan) -> dict[str, Any]:
    """Ranks, hosts and launcher, for `machine_info`."""
    if ranks.count == 1:
        return {"ranks": 1}
    return {
        "ranks": ranks.count,
        "hosts": ranks.world.hosts,
        "launcher": ranks.world.launcher,
    }


def find_transport(ranks: RankPlan, hosts: int, pair: tuple[int, int] | None) -> str | None:
    """Link between all ranks, or of a pair; None if mixed or unknown."""
    if ranks.kind == "cpu":
        return "loopback" if hosts == 1 else "network"
    if hosts > 1:
        return None
    links = gpu_links(ranks.count)
    if pair:
        return links.get("-".join(map(str, sorted(pair))))
    kinds = set(links.values())
    return kinds.pop() if len(kinds) == 1 else None


def plan_ranks(requested: int | None, kind: str) -> RankPlan:
    """Ranks of a launcher, or ranks to start: by default one per GPU, two on a CPU.

    Raises:
        UserError: more ranks than GPUs, a CPU count out of range, or another count than the launcher's.
    """
    launched = find_launched_rank()
    if launched:
        if requested not in (None, launched.ranks):
            raise UserError(f"--ranks {requested}: {launched.launcher} started {launched.ranks}; leave --ranks out")
        return RankPlan(launched.ranks, kind, launched)
    if kind == "cuda":
        gpus = torch.cuda.device_count()
        if requested and requested > gpus:
            raise UserError(
                f"--ranks {requested}: one rank needs one GPU, and torch sees {gpus}; at most --ranks {gpus}"
            )
        return RankPlan(requested or max(1, gpus), kind)
    if requested is not None and not 2 <= requested <= MAX_CPU_RANKS:
        raise UserError(f"--ranks {requested}: between 2 and {MAX_CPU_RANKS} ranks talk on a CPU")
    return RankPlan(requested or DEFAULT_CPU_RANKS, kind)
