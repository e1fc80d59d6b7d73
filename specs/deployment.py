"""How a model is laid over ranks and run: tensor parallel, in stages, in replicas, and with which schedule.

Ranks of one layer are neighbours, then come the stages, then the replicas: the links between neighbours are the
fastest, and all-reduces need them most.
"""

from dataclasses import dataclass
from typing import NamedTuple

from specs.models import Model
from specs.parallel import PARTITIONS, Split

SCHEDULES = ("tp", "sync", "async")
"""One stage; or several that the whole batch walks through, or m micro-batches of it at a time."""


class Seat(NamedTuple):
    """Where a rank sits: its replica, its stage there, its shard of that stage's layers."""

    replica: int
    stage: int
    shard: int


@dataclass(frozen=True)
class Deployment:
    """One way to run a model; strings and integers only, for JSON.

    Attributes:
        tp: ranks that share every layer.
        pp: stages.
        replicas: copies of all this, each with its part of the batch and no word to the others.
        schedule: one of `SCHEDULES`; tp where there is one stage.
        micro_batches: parts of a replica's batch that are under way at once; 1 unless the schedule is async.
        partition: how layers are dealt to stages, see `specs.parallel.Split`.
    """

    tp: int = 1
    pp: int = 1
    replicas: int = 1
    schedule: str = "tp"
    micro_batches: int = 1
    partition: str = "even"

    def __str__(self) -> str:
        """`tp2`, `tp2-pp2-sync`, `pp4-async8-balanced`, `tp1x2` for two replicas."""
        words = [f"tp{self.tp}"] if self.tp > 1 or self.pp == 1 else []
        if self.pp > 1:
            words += [f"pp{self.pp}", self.schedule + (str(self.micro_batches) if self.schedule == "async" else "")]
        if self.partition != "even":
            words.append(self.partition)
        return "-".join(words) + (f"x{self.replicas}" if self.replicas > 1 else "")

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.tp * self.pp * self.replicas

    @property
    def busy_ranks(self) -> int:
        """Ranks that compute at once: all of a stage, in as many stages as there are micro-batches for."""
        return self.tp * self.replicas * min(self.micro_batches, self.pp)

    def seat(self, rank: int) -> Seat:
        """Where a rank sits."""
        return Seat(rank // (self.tp * self.pp), rank // self.tp % self.pp, rank % self.tp)

    def rank(self, seat: Seat) -> int:
        """Who sits there."""
        return (seat.replica * self.pp + seat.stage) * self.tp + seat.shard

    def split(self, model: Model) -> Split:
        """How one replica cuts the model.

        Raises:
            UserError: the model cannot be cut so.
        """
        return Split(model, self.tp, self.pp, self.partition)

    def micro_batch_sizes(self, batch: int) -> tuple[int, ...]:
        """Sequences of each micro-batch of one replica; where they do not divide, the first have one more."""
        base, extra = divmod(batch // self.replicas, self.micro_batches)
        return tuple(base + (slot < extra) for slot in range(self.micro_batches))

    def why_not(self, ranks: int, batch: int) -> str | None:
        """One line on why so many ranks cannot run it with this batch; None if they can."""
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
