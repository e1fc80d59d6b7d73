"""What a plan is asked for: the model, the GPUs, the load, and what is to be imagined of the links."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from specs.errors import UserError
from specs.layer import why_unsupported_layer
from specs.models import MODELS, Model, find_model, scaled_model
from specs.parallel import PARTITIONS, Deployment

# The links between GPUs, as they are or as somebody imagines them: what is imagined makes a figure a modelled one.

MIN_LINK_RATE, MAX_LINK_RATE = 1e3, 1e15
"""Bytes a second that a link may have."""
MAX_LINK_LATENCY = 1.0
MIN_LINK_SHARE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Interconnect:
    """What to change about the links. Where there are several nodes all of it is about the link between them.

    Attributes:
        nodes: hosts that the GPUs are in.
        gpus_per_node: in each of them; None where there is one.
        bytes_per_second: of the link, in one direction; None for what was measured, else the datasheet's or, between
            nodes, what `reports.plan.estimate` says.
        latency_seconds: of a message over it; None likewise.
        share: of the link's rate that is left by whoever else uses it.
    """

    nodes: int = 1
    gpus_per_node: int | None = None
    bytes_per_second: float | None = None
    latency_seconds: float | None = None
    share: float = 1.0

    @property
    def is_hypothetical(self) -> bool:
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
        """Why groups of `tp` ranks do not lie evenly in hosts; empty where they do."""
        host = self.gpus_per_node
        if self.nodes == 1 or host is None or host % tp == 0 or tp % host == 0:
            return ""
        return (
            f"tp {tp} over hosts of {host} GPUs: a group would lie in two of them unevenly; choose --gpus-per-node "
            f"that {tp} divides, or that divides {tp}"
        )

    def host_of(self, rank: int) -> int:
        """The host that a rank is in."""
        return rank // self.gpus_per_node if self.gpus_per_node else 0

    def hosts_spanned(self, tp: int) -> int:
        """Hosts that a group of neighbouring ranks lies over."""
        return -(-tp // self.gpus_per_node) if self.gpus_per_node else 1


BACKENDS = ("best", "custom", "nccl")
"""Whose all-reduce: the faster one at each message, an engine's own kernel, or the library's."""
DEFAULT_BATCHES = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
MAX_GPUS = 1024
TARGET_LATENCIES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Seconds a token that somebody may have promised."""


@dataclass(frozen=True, kw_only=True)
class PlanQuery:
    """The question.

    Attributes:
        model: slug.
        gpus: in all; tp x pp x replicas of every way to cut the model.
        context: tokens in each sequence's cache, the new one included.
        batches: sequences in all, over all replicas.
        dtype: of weights, caches and messages.
        backend: one of `BACKENDS`.
        launches: of all-reduces, the first one that was timed counts: a decode step runs in a graph.
        partition: how layers are dealt to stages.
        draft_tokens: that each sequence has checked in a step beside its own.
        prefill_chunk: tokens of prompts that a step takes along.
        layers: that the model is cut down to; None for all.
        latencies: seconds a token for which the best split is named.
        interconnect: the links, as they are or as they are imagined.

    Raises:
        UserError: it cannot be asked so.
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
        if reason := why_unsupported_layer(find_model(self.model)):
            dense = ", ".join(slug for slug, one in MODELS.items() if not why_unsupported_layer(one))
            raise UserError(
                f"{reason}: mixtures of experts and other layers are out of a plan's scope; choose among {dense}"
            )
        self.interconnect.check(self.gpus)
        _ = self.truncated_model

    @cached_property
    def truncated_model(self) -> Model:
        """The model that is planned for.

        Raises:
            UserError: it has fewer layers.
        """
        whole = find_model(self.model)
        return scaled_model(whole, self.layers) if self.layers else whole

    @property
    def rows_per_sequence(self) -> int:
        """Rows of a forward pass that each sequence has: its own token and those that are checked."""
        return 1 + self.draft_tokens


# Every way to run a model over so many GPUs.

MICRO_BATCH_FACTORS = (1, 2)
"""Multiples of the stages that async runs are planned with: as many as keep all busy, and twice that."""


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
    """The largest first: TP over all ranks leads."""
    return [one for one in range(count, 0, -1) if count % one == 0]
