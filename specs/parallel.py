"""The split of a model over ranks: one rank's linears, stages, and deployments.

Column-parallel linears (qkv, gate_up, lm_head) cut their output features n. Row-parallel linears (o, down) cut their
input features k, and each ends in an all-reduce over hidden. Experts are cut like a dense MLP, so every rank holds a
slice of every expert; expert parallelism is not implemented.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from specs.errors import UserError, find
from specs.models import Model

PARTITIONS = ("even", "balanced")


class Shard(NamedTuple):
    """One rank's part of one linear, y[tokens, n] = x[tokens, k] · W[n, k]ᵀ.

    All fields are strings and integers, for JSON.
    """

    model: str
    tp: int
    pp: int
    layer: str
    n: int
    k: int


@dataclass(frozen=True)
class Split:
    """A model over tp x pp ranks.

    Attributes:
        model: the model to split.
        tp: ranks that share every layer.
        pp: number of pipeline stages.
        partition: rule that deals layers to stages, one of `PARTITIONS`: even, or balanced so that the slowest stage is
            as fast as possible, with the LM head counted by its parameters.

    Raises:
        UserError: the model cannot be split so.
    """

    model: Model
    tp: int = 1
    pp: int = 1
    partition: str = "even"

    def __post_init__(self) -> None:
        model, tp, pp = self.model, self.tp, self.pp
        if tp < 1 or pp < 1:
            raise UserError(f"{model}: tp={tp} and pp={pp}, both must be at least 1; choose 1 for no split")
        if self.partition not in PARTITIONS:
            raise UserError(f"{model}: partition {self.partition!r} is unknown; choose from {', '.join(PARTITIONS)}")
        if not _can_shard(model, tp):
            widest = model.heads or model.intermediate
            fit = ", ".join(str(width) for width in range(1, widest + 1) if _can_shard(model, width))
            raise UserError(
                f"{model}: tp={tp} must divide {model.heads} heads and intermediate {model.intermediate}, and divide "
                f"{model.kv_heads} kv_heads or be a multiple of them; choose among {fit}"
            )
        if pp > model.layers:
            raise UserError(f"{model}: pp={pp} exceeds its {model.layers} layers; choose pp of at most {model.layers}")

    def __str__(self) -> str:
        return f"{self.model}-tp{self.tp}-pp{self.pp}"

    @property
    def kv_heads_per_rank(self) -> int:
        """Key-value heads on a rank: at least 1, so replicated once tp exceeds kv_heads."""
        return max(1, self.model.kv_heads // self.tp)

    @property
    def vocab_per_rank(self) -> int:
        """Rows of the vocabulary on a rank, rounded up where tp does not divide them."""
        return -(-self.model.vocab // self.tp)

    def stage_layers(self) -> tuple[int, ...]:
        """Return the layers of each stage; an even split gives the rest to the first."""
        if self.partition == "even" or self.pp == 1:
            return _even_stages(self.model.layers, self.pp)
        return _balanced_stages(self.model, self.pp)

    def layers_of(self, stage: int) -> int:
        """Return the layers of one stage, counted from 0.

        Raises:
            UserError: there is no such stage.
        """
        if not 0 <= stage < self.pp:
            raise UserError(f"{self}: stage {stage} is outside 0 … {self.pp - 1}; choose one within")
        return self.stage_layers()[stage]

    @cached_property
    def linears(self) -> dict[str, Shard]:
        """One rank's linears by name, in the order of a forward pass.

        One expert stands for all experts.
        """
        model, tp = self.model, self.tp
        shapes: dict[str, tuple[int, int]] = {}
        if model.heads:
            queries = model.heads // tp * model.head_dim
            shapes["qkv"] = (queries + 2 * self.kv_heads_per_rank * model.head_dim, model.hidden)
            shapes["o"] = (model.hidden, queries)
        shapes[model.up_layer] = (model.up_width // tp, model.hidden)
        shapes["down"] = (model.hidden, model.intermediate // tp)
        shapes["lm_head"] = (self.vocab_per_rank, model.hidden)
        return {layer: Shard(model.slug, tp, self.pp, layer, n, k) for layer, (n, k) in shapes.items()}

    def linear(self, name: str) -> Shard:
        """Return one rank's part of the linear `name`.

        The names are qkv, o, gate_up (up where ungated), down and lm_head.

        Raises:
            UserError: no such linear in this model.
        """
        if name in ("qkv", "o"):
            self.model.require_attention()
        return find(self.linears, name, f"layer of {self.model}")


def _even_stages(layers: int, stages: int) -> tuple[int, ...]:
    base, extra = divmod(layers, stages)
    return tuple(base + (stage < extra) for stage in range(stages))


def _balanced_stages(model: Model, pp: int) -> tuple[int, ...]:
    """Return the layers of each stage, with the LM head counted as layers.

    The head counts as many layers as its parameters make. Among equal choices the most even is taken.
    """
    head = model.embedding_parameters / model.layer_parameters
    even = _even_stages(model.layers, pp)
    choices = [(*_even_stages(model.layers - last, pp - 1), last) for last in range(1, even[-1] + 1)]
    return min(choices, key=lambda choice: (max(*choice[:-1], choice[-1] + head), -choice[-1]))


def _can_shard(model: Model, tp: int) -> bool:
    whole = model.heads % tp == 0 and model.intermediate % tp == 0
    return whole and (model.kv_heads % tp == 0 or tp % model.kv_heads == 0)


# Deployment of a model over ranks: tensor parallel, stages, replicas and a schedule.
#
# Ranks of one layer are neighbours, then come the stages, then the replicas. Links between neighbours are the fastest,
# and all-reduces need them most.

SCHEDULES = ("tp", "sync", "async")
"""Schedules: tp has one stage, sync and async have several.

sync sends the whole batch through the stages, async sends m microbatches at a time.
"""


class RankPosition(NamedTuple):
    """Position of a rank: replica, stage, and shard of the stage's layers."""

    replica: int
    stage: int
    shard: int


@dataclass(frozen=True)
class Deployment:
    """One way to run a model; strings and integers only, for JSON.

    Attributes:
        tp: ranks that share every layer.
        pp: stages.
        replicas: independent copies of the split model; each runs its part of the batch.
        schedule: one of `SCHEDULES`; tp where there is one stage.
        micro_batches: parts of a replica's batch in flight at once; 1 unless the schedule is async.
        partition: rule that deals layers to stages, see `specs.parallel.Split`.
    """

    tp: int = 1
    pp: int = 1
    replicas: int = 1
    schedule: str = "tp"
    micro_batches: int = 1
    partition: str = "even"

    def __str__(self) -> str:
        """Return `tp2`, `tp2-pp2-sync`, `pp4-async8-balanced`, `tp1x2` for two replicas."""
        words = [f"tp{self.tp}"] if self.tp > 1 or self.pp == 1 else []
        if self.pp > 1:
            words += [f"pp{self.pp}", self.schedule + (str(self.micro_batches) if self.schedule == "async" else "")]
        if self.partition != "even":
            words.append(self.partition)
        return "-".join(words) + (f"x{self.replicas}" if self.replicas > 1 else "")

    @property
    def ranks(self) -> int:
        """Number of all ranks."""
        return self.tp * self.pp * self.replicas

    @property
    def busy_ranks(self) -> int:
        """Number of ranks that compute at once.

        They are all ranks of a stage, in as many stages as there are microbatches for.
        """
        return self.tp * self.replicas * min(self.micro_batches, self.pp)

    def position(self, rank: int) -> RankPosition:
        """Return the position of a rank."""
        return RankPosition(rank // (self.tp * self.pp), rank // self.tp % self.pp, rank % self.tp)

    def rank(self, position: RankPosition) -> int:
        """Return the rank at a position."""
        return (position.replica * self.pp + position.stage) * self.tp + position.shard

    def split(self, model: Model) -> Split:
        """Return the split of the model in one replica.

        Raises:
            UserError: the model cannot be cut so.
        """
        return Split(model, self.tp, self.pp, self.partition)

    def micro_batch_sizes(self, batch: int) -> tuple[int, ...]:
        """Return the sequences of each microbatch of one replica.

        Where they do not divide evenly, the first microbatches have one more.
        """
        base, extra = divmod(batch // self.replicas, self.micro_batches)
        return tuple(base + (slot < extra) for slot in range(self.micro_batches))

    def why_not(self, ranks: int, batch: int) -> str | None:
        """Return why `ranks` ranks cannot run this batch, in one line; None if they can."""
        if self.ranks != ranks:
            return (
                f"tp {self.tp} x pp {self.pp} x replicas {self.replicas} is {self.ranks} ranks and this run has "
                f"{ranks}; choose factors of {ranks}, or --ranks {self.ranks}"
            )
        if self.schedule not in SCHEDULES or (self.schedule == "tp") != (self.pp == 1):
            return f"schedule {self.schedule} with pp {self.pp}: tp is for one stage, sync and async for several"
        if self.partition not in PARTITIONS:
            return f"partition {self.partition!r} is unknown; choose from {', '.join(PARTITIONS)}"
        if batch % self.replicas:
            return f"batch {batch} does not divide over {self.replicas} replicas; choose a multiple of {self.replicas}"
        if self.schedule != "async" and self.micro_batches != 1:
            return f"{self.micro_batches} micro-batches under schedule {self.schedule}: only async has several"
        if self.micro_batches > batch // self.replicas:
            return (
                f"{self.micro_batches} micro-batches of {batch // self.replicas} sequences a replica: at most one a "
                f"sequence; choose a larger --batch (--prompts) or fewer --micro-batches"
            )
        return None
