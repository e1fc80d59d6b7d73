"""How many ranks a run has, and of what kind: known before any is started."""

import os
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from comm.backend import World
from specs.errors import UserError
from suites.environment import gpu_links
from suites.world.meeting import interface
from suites.world.place import Place, find_place

CPU_RANKS = 2
"""Ranks on a CPU unless asked otherwise: the least that talk."""
MOST_CPU_RANKS = 64
LOOPBACK = next((name for name in ("lo", "lo0") if name in psutil.net_if_addrs()), None)


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run.

    Attributes:
        count: how many; 1 where there is nobody to talk to.
        kind: torch's device name, cpu or cuda.
        place: this process's, where a launcher started several.
    """

    count: int
    kind: str
    place: Place | None = None

    @property
    def world(self) -> World:
        """As rank 0 sees it, for planning."""
        local = self.place.local_ranks if self.place else self.count
        return World(0, self.count, 0, local, self.kind, self.place.launcher if self.place else "own")

    @property
    def leads(self) -> bool:
        """Whether this process measures and writes."""
        return self.place is None or self.place.rank == 0

    def why_not(self) -> str | None:
        """Why nothing can be measured between ranks; None if it can."""
        if self.count > 1:
            return None
        return "one GPU is one rank, with nobody to talk to; `make gpu` checks ranks that share a GPU"


def rank_environment(ranks: Ranks) -> dict[str, str]:
    """Variables of the ranks' processes: gloo talks over the loopback on one host, else over what reaches rank 0.

    Left to itself it looks up this host's name, which may not resolve, or to an address that others cannot reach.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return {}
    name = interface(ranks.place) if ranks.place else LOOPBACK
    return {"GLOO_SOCKET_IFNAME": name} if name else {}


def rank_info(ranks: Ranks) -> dict[str, Any]:
    """For `machine_info`."""
    if ranks.count == 1:
        return {"ranks": 1}
    return {
        "ranks": ranks.count,
        "hosts": ranks.world.hosts,
        "launcher": ranks.world.launcher,
    }


def transport(ranks: Ranks, hosts: int, pair: tuple[int, int] | None) -> str | None:
    """The one kind of link that all ranks, or a pair of them, talk over; None for several, or where nothing tells."""
    if ranks.kind == "cpu":
        return "loopback" if hosts == 1 else "network"
    if hosts > 1:
        return None
    links = gpu_links(ranks.count)
    if pair:
        return links.get("-".join(map(str, sorted(pair))))
    kinds = set(links.values())
    return kinds.pop() if len(kinds) == 1 else None


def plan_ranks(asked: int | None, kind: str) -> Ranks:
    """The ranks that a launcher started, or those to start: one a GPU, on a CPU two.

    Raises:
        UserError: more than there are GPUs, or another count than the launcher's.
    """
    place = find_place()
    if place:
        if asked not in (None, place.ranks):
            raise UserError(f"--ranks {asked}: {place.launcher} started {place.ranks}; leave --ranks out")
        return Ranks(place.ranks, kind, place)
    if kind == "cuda":
        gpus = torch.cuda.device_count()
        if asked and asked > gpus:
            raise UserError(f"--ranks {asked}: one rank needs one GPU, and torch sees {gpus}; at most --ranks {gpus}")
        return Ranks(asked or max(1, gpus), kind)
    if asked is not None and not 2 <= asked <= MOST_CPU_RANKS:
        raise UserError(f"--ranks {asked}: between 2 and {MOST_CPU_RANKS} ranks talk on a CPU")
    return Ranks(asked or CPU_RANKS, kind)
