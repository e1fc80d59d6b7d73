"""Query of a plan: model, GPUs, load, and hypothetical links."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from specs.errors import UserError
from specs.layer import why_unplannable_layer
from specs.models import MODELS, Model, find_model, scaled_model
from specs.parallel import PARTITIONS, Deployment

# Links between GPUs, as they are or hypothetical. Hypothetical links make a figure modelled.

MIN_LINK_RATE, MAX_LINK_RATE = 1e3, 1e15
"""Allowed range of a link's rate in bytes/s."""
MAX_LINK_LATENCY = 1.0
MIN_LINK_SHARE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Interconnect:
    """Changes to the links between GPUs.

    With several nodes all changes apply to the link between nodes.

    Attributes:
        nodes: hosts that hold the GPUs.
        gpus_per_node: GPUs in each host; None with one host.
        bytes_per_second: rate of the link in one direction. None: the measured rate, else the datasheet's or, between
            nodes, the default in `reports.plan.estimate`.
        latency_seconds: latency of a message; None as for `bytes_per_second`.
        share: share of the link's rate that other users leave.
    """

    nodes: int = 1
    gpus_per_node: int | None = None
    bytes_per_second: float | None = None
    latency_seconds: float | None = None
    share: float = 1.0

    @property
    def is_hypothetical(self) -> bool:
        """True where anything differs from the links measured in one host."""
        return self.nodes > 1 or self.changes_link

    @property
    def changes_link(self) -> bool:
        """True where the link within a host differs.

        With several hosts the changes apply to the link between hosts, so the value is False.
        """
        alike = self.bytes_per_second is None and self.latency_seconds is None and self.share == 1.0
        return self.nodes == 1 and not alike

    def check(self, gpus: int) -> None:
        """Check that this many GPUs fit the hosts and that all figures are in range.

        Raises:
            UserError: the GPUs do not fit, or a figure is out of range.
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
        if rate is not None and not MIN_LINK_RATE <= rate <= MAX_LINK_RATE:
            raise UserError(
                f"--link-bandwidth {rate:g}: not between {MIN_LINK_RATE:g} and {MAX_LINK_RATE:g}; give bytes a "
                "second in one "
                "direction, as in 50e9"
            )
        if latency is not None and not 0 <= latency <= MAX_LINK_LATENCY:
            raise UserError(
                f"--link-latency {latency:g}: not between 0 and {MAX_LINK_LATENCY:g}; give seconds, as in 10e-6"
            )
        if not MIN_LINK_SHARE <= self.share <= 1:
            raise UserError(
                f"--link-share {self.share:g}: not between {MIN_LINK_SHARE:g} and 1; give what is left, as in 0.5"
            )

    def why_straddles(self, tp: int) -> str:
        """Reason why groups of `tp` ranks lie unevenly in hosts; empty where they do not."""
        host = self.gpus_per_node
        if self.nodes == 1 or host is None or host % tp == 0 or tp % host == 0:
            return ""
        return (
            f"tp {tp} over hosts of {host} GPUs: a group would lie in two of them unevenly; choose --gpus-per-node "
            f"that {tp} divides, or that divides {tp}"
        )

    def host_of(self, rank: int) -> int:
        """Index of the host that holds a rank."""
        return rank // self.gpus_per_node if self.gpus_per_node else 0

    def hosts_spanned(self, tp: int) -> int:
        """Number of hosts that a group of neighbouring ranks spans."""
        return -(-tp // self.gpus_per_node) if self.gpus_per_node else 1


BACKENDS = ("best", "custom", "nccl")
"""Kinds of all-reduce.

best: the fastest at each message; custom: an engine's own kernel; nccl: the library's.
"""
LAUNCH_MODES = ("graph", "eager")
"""Launch modes of all-reduces, best first."""
DEFAULT_BATCHES = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
MAX_GPUS = 1024
TARGET_LATENCIES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Latency limits in seconds per token."""


@dataclass(frozen=True, kw_only=True)
class PlanQuery:
    """Question that a plan answers.

    Attributes:
        model: any name that `find_model` takes; the slug once the query is made.
        gpus: number of GPUs; tp x pp x replicas of every split.
        context: tokens in each sequence's cache, the new token included.
        batches: sequences in total, over all replicas.
        dtype: number format, see `specs.units.NUMBER_FORMATS`.
        backend: one of `BACKENDS`.
        launches: launch modes of all-reduces; the first measured mode counts, because a decode step runs in a graph.
        partition: how layers are distributed over stages.
        draft_tokens: draft tokens of each sequence that a step checks beside its own token.
        prefill_chunk: prompt tokens that a step takes along.
        layers: layers that the model is truncated to; None for all.
        latencies: seconds per token for which the best split is named.
        interconnect: links, as they are or hypothetical.

    Raises:
        UserError: an option is invalid or the model is unsupported.
    """

    model: str
    gpus: int
    context: int = 2048
    batches: Sequence[int] = DEFAULT_BATCHES
    dtype: str = "bf16"
    backend: str = "best"
    launches: Sequence[str] = ("graph", "eager")
    partition: str = "even"
    draft_tokens: int = 0
    prefill_chunk: int = 0
    layers: int | None = None
    latencies: Sequence[float] = TARGET_LATENCIES
    interconnect: Interconnect = field(default_factory=Interconnect)

    def __post_init__(self) -> None:
        least = {"gpus": 1, "context": 1, "draft_tokens": 0, "prefill_chunk": 0, "layers": 1}
        for name, limit in least.items():
            if (value := getattr(self, name)) is not None and value < limit:
                raise UserError(f"--{name.replace('_', '-')} {value}: below {limit}; give {limit} or more")
        if self.gpus > MAX_GPUS:
            raise UserError(f"--gpus {self.gpus}: over {MAX_GPUS}; a plan is for what serves one model, so give fewer")
        if odd := [one for one in self.batches if one < 1]:
            raise UserError(f"--batch {odd[0]}: below 1; give sequences, as in --batch 1,8,64")
        if not self.batches:
            raise UserError("--batch: no batch; give sequences, as in --batch 1,8,64")
        if self.backend not in BACKENDS:
            raise UserError(f"--backend {self.backend!r} is unknown; choose from {', '.join(BACKENDS)}")
        if self.partition not in PARTITIONS:
            raise UserError(f"--partition {self.partition!r} is unknown; choose from {', '.join(PARTITIONS)}")
        model = find_model(self.model)
        object.__setattr__(self, "model", model.slug)
        if reason := why_unplannable_layer(model):
            planned = (slug for slug, one in MODELS.items() if not why_unplannable_layer(one))
            raise UserError(
                f"{reason}: mixtures of experts and other layers are out of a plan's scope; choose among "
                f"{', '.join(planned)}"
            )
        self.interconnect.check(self.gpus)
        _ = self.truncated_model

    @cached_property
    def truncated_model(self) -> Model:
        """Model that is planned for.

        Raises:
            UserError: the model has fewer layers.
        """
        whole = find_model(self.model)
        return scaled_model(whole, self.layers) if self.layers else whole

    @property
    def rows_per_sequence(self) -> int:
        """Rows of each sequence in a forward pass: its own token and its draft tokens."""
        return 1 + self.draft_tokens


# Deployments of a model over a number of GPUs.

MICRO_BATCH_FACTORS = (1, 2)
"""Microbatches of async runs, in multiples of the stages.

1: as many as keep all stages busy; 2: twice as many.
"""


def all_deployments(gpus: int, partition: str) -> list[Deployment]:
    """Each tp x pp x replicas that makes up `gpus`, with each schedule; TP first."""
    return [
        one
        for tp in _divisors(gpus)
        for pp in _divisors(gpus // tp)
        for one in _with_schedules(gpus, tp, pp, partition)
    ]


def _with_schedules(gpus: int, tp: int, pp: int, partition: str) -> Iterator[Deployment]:
    replicas = gpus // (tp * pp)
    if pp == 1:
        yield Deployment(tp, 1, replicas)
        return
    yield Deployment(tp, pp, replicas, "sync", 1, partition)
    for factor in MICRO_BATCH_FACTORS:
        yield Deployment(tp, pp, replicas, "async", factor * pp, partition)


def _divisors(count: int) -> list[int]:
    """Divisors of `count`, the largest first, so that TP over all ranks leads."""
    return [one for one in range(count, 0, -1) if count % one == 0]
