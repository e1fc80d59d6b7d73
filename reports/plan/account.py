"""Where a step goes: all-reduces, hops, the bubble; and what each of its parts rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from reports.evidence import weakest
from reports.plan.cost import Cost
from reports.plan.parts import ALL_REDUCE, Parts
from reports.plan.step import Step, chunk_of
from specs.parallel import Deployment, Split


@dataclass(frozen=True)
class Account:
    """Shares of a step, each the mean over stages; and by part where its time comes from.

    Attributes:
        all_reduce_share: in all-reduces.
        hop_share: waiting for messages on their way, where the loop hangs on them.
        bubble_share: waiting for other stages.
        provenance: by part the weakest of what it rests on.
        cases: by part the names of the cases.
    """

    all_reduce_share: float
    hop_share: float
    bubble_share: float
    provenance: Mapping[str, str]
    cases: Mapping[str, Sequence[str]]

    @property
    def communication_share(self) -> float:
        """All-reduces and hops together."""
        return self.all_reduce_share + self.hop_share


def account(parts: Parts, deployment: Deployment, split: Split, step: Step) -> Account:
    """Of a composed step."""
    chunk = chunk_of(parts.asked.prefill_chunk, deployment)
    layers, busy = split.stage_layers(), deployment.busy_ranks
    reducing = [0.0] * deployment.pp
    used: dict[str, list[Cost]] = {}
    for size in set(step.sizes):
        count = step.sizes.count(size)
        layer = parts.layer_parts(deployment.tp, size, chunk, busy)
        head = parts.head_parts(deployment.tp, size, busy)
        for name, cost in (*layer.items(), *head.items()):
            used.setdefault(name, []).append(cost)
        for stage, held in enumerate(layers):
            reducing[stage] += count * held * _seconds(layer)
        reducing[-1] += count * _seconds(head)
        used.setdefault("hop", []).extend(step.hops.get(size, ()))
    working = [sum(step.stages[size][stage].seconds for size in step.sizes) for stage in range(deployment.pp)]
    idle = max(0.0, 1 - fmean(working) / step.seconds)
    hop = min(idle, _exposed(step) / step.seconds)
    used = {name: costs for name, costs in used.items() if costs}
    return Account(
        all_reduce_share=fmean(reducing) / step.seconds,
        hop_share=hop,
        bubble_share=idle - hop,
        provenance={name: weakest(one.provenance for one in costs) for name, costs in used.items()},
        cases={name: sorted({case for one in costs for case in one.cases}) for name, costs in used.items()},
    )


def _seconds(found: Mapping[str, Cost]) -> float:
    return found[ALL_REDUCE].seconds if ALL_REDUCE in found else 0.0


def _exposed(step: Step) -> float:
    """Seconds that messages are on their way while the loop waits for them: none where a stage sets the pace."""
    if not step.hops:
        return 0.0
    size = max(step.sizes)
    slowest = max(one.seconds for one in step.stages[size])
    way = sum(one.seconds for one in step.hops[size])
    round_trip = sum(one.seconds for one in step.stages[size]) + way
    return min(way, max(0.0, round_trip - len(step.sizes) * slowest))
