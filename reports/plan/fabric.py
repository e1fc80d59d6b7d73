"""The links between GPUs, as they are or as somebody imagines them: what is imagined makes a figure a modelled one."""

from dataclasses import dataclass

from specs.errors import UserError

LEAST_RATE, MOST_RATE = 1e3, 1e15
"""Bytes a second that a link may have."""
MOST_LATENCY = 1.0
LEAST_SHARE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """What to change about the links. Where there are several nodes all of it is about the link between them.

    Attributes:
        nodes: hosts that the GPUs are in.
        gpus_per_node: in each of them; None where there is one.
        bytes_per_second: of the link, in one direction; None for what was measured, else the datasheet's or, between
            nodes, what `reports.plan.assumed` says.
        latency_seconds: of a message over it; None likewise.
        share: of the link's rate that is left by whoever else uses it.
    """

    nodes: int = 1
    gpus_per_node: int | None = None
    bytes_per_second: float | None = None
    latency_seconds: float | None = None
    share: float = 1.0

    @property
    def imagined(self) -> bool:
        """Whether anything differs from what was measured in one host."""
        return self.nodes > 1 or self.changes_link

    @property
    def changes_link(self) -> bool:
        """Whether the link within a host differs; of several hosts it is the one between them that does."""
        alike = self.bytes_per_second is None and self.latency_seconds is None and self.share == 1.0
        return self.nodes == 1 and not alike

    def check(self, gpus: int) -> None:
        """Whether so many GPUs can be there.

        Raises:
            UserError: they cannot, or a figure is none.
        """
        if self.nodes < 1 or (self.gpus_per_node if self.gpus_per_node is not None else 1) < 1:
            raise UserError(f"--nodes {self.nodes} --gpus-per-node {self.gpus_per_node}: give 1 or more of both")
        if self.nodes > 1 and self.gpus_per_node is None:
            raise UserError(f"--nodes {self.nodes}: say how many GPUs each has, as in --gpus-per-node 8")
        if self.gpus_per_node is not None and self.nodes * self.gpus_per_node != gpus:
            raise UserError(
                f"--nodes {self.nodes} --gpus-per-node {self.gpus_per_node}: that is "
                f"{self.nodes * self.gpus_per_node} GPUs, and --gpus says {gpus}; make them equal"
            )
        rate, latency = self.bytes_per_second, self.latency_seconds
        if rate is not None and not LEAST_RATE <= rate <= MOST_RATE:
            raise UserError(
                f"--link-bandwidth {rate:g}: not between {LEAST_RATE:g} and {MOST_RATE:g}; give bytes a second in one "
                "direction, as in 50e9"
            )
        if latency is not None and not 0 <= latency <= MOST_LATENCY:
            raise UserError(
                f"--link-latency {latency:g}: not between 0 and {MOST_LATENCY:g}; give seconds, as in 10e-6"
            )
        if not LEAST_SHARE <= self.share <= 1:
            raise UserError(
                f"--link-share {self.share:g}: not between {LEAST_SHARE:g} and 1; give what is left, as in 0.5"
            )

    def why_straddles(self, tp: int) -> str:
        """Why groups of `tp` ranks do not lie evenly in hosts; empty where they do."""
        host = self.gpus_per_node
        if self.nodes == 1 or host is None or host % tp == 0 or tp % host == 0:
            return ""
        return (
            f"tp {tp} over hosts of {host} GPUs: a group would lie in two of them unevenly; choose --gpus-per-node "
            f"that {tp} divides, or that divides {tp}"
        )

    def node(self, rank: int) -> int:
        """The host that a rank is in."""
        return rank // self.gpus_per_node if self.gpus_per_node else 0

    def spans(self, tp: int) -> int:
        """Hosts that a group of neighbouring ranks lies over."""
        return -(-tp // self.gpus_per_node) if self.gpus_per_node else 1
