"""The search on silicon: try what the model ranks first, then what lies next to the best, until time is up."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from kernels.tuning.config import Config
from kernels.tuning.space import neighbours
from kernels.tuning.subject import Subject

SEEDS = 4
"""Leaders of the ranking, before neighbours of the best have their turn."""


@dataclass
class Hunt:
    """The search for one shape class.

    Attributes:
        shape: what stands for the class.
        ranked: every candidate, the one with the fastest prediction first; one already in use may lead.
        seconds: cold mean of what was tried, by configuration; inf for what was wrong or would not run.
    """

    shape: Subject
    ranked: Sequence[Any]
    seconds: dict[Any, float] = field(default_factory=dict)

    @property
    def best(self) -> Any:
        """The fastest of what was tried and right; None where nothing was."""
        right = {config: seconds for config, seconds in self.seconds.items() if seconds < inf}
        return min(right, key=lambda config: right[config]) if right else None

    def next(self) -> Any:
        """What to try now: the first few of the ranking, then neighbours of the best, then the rest; at last None."""
        fresh = [config for config in self.ranked if config not in self.seconds]
        seeds = [config for config in self.ranked[:SEEDS] if config not in self.seconds]
        near = neighbours(self.best, fresh) if self.best else []
        return next(iter([*seeds, *near, *fresh]), None)


Try = Callable[[Hunt, Any], float]


def leaders_first(ranked: Sequence[Config]) -> list[Config]:
    """The best of each way to multiply and to fetch leads: no step along one field goes from one way to another."""
    ways = {(config.matrix, config.tma): config for config in reversed(ranked)}
    leaders = [config for config in ranked if ways[config.matrix, config.tma] == config]
    return list(dict.fromkeys([*leaders, *ranked]))


def rounds(hunts: Sequence[Hunt], trial: Try, time_left: Callable[[], bool]) -> Iterator[int]:
    """Give each hunt one try after another, so that no shape waits for the others; yields rounds from 1.

    Args:
        hunts: what to search for.
        trial: cold mean of a configuration in seconds; inf where it is wrong or does not run.
        time_left: asked before each try.
    """
    number = 0
    while time_left():
        open_hunts = [(hunt, config) for hunt in hunts if (config := hunt.next()) is not None]
        if not open_hunts:
            return
        for hunt, config in open_hunts:
            if not time_left():
                return
            hunt.seconds[config] = trial(hunt, config)
        number += 1
        yield number
