"""Constants of serving engines, fitted on served runs: host time, waits for late ranks, prompts.

They multiply or add to what measured parts give, and no kernel's time holds them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple


def late_all_reduces(tp: int) -> float:
    """All-reduces of a layer that wait for the latest rank, each by the share of ranks that are not the latest."""
    return 2 * (1 - 1 / tp)


@dataclass(frozen=True)
class ServingConstants:
    """Constants of one engine on one GPU in one format, in seconds where not said otherwise.

    Attributes:
        host: time of a step on the host.
        host_per_sequence: the host's time for each sequence.
        skew: an all-reduce's wait for the latest rank, over many ranks.
        prompt_launch: launches of a step with a prompt for each layer, since it runs in no graph.
        prompt_factor: factor on the computed time of a prompt; a number.
        linear_factor: factor on the linears of a decode step; a number.
        first: time to the first token beyond all steps.
        first_prompts: prompts that a first token takes, its own and those read with it; a number.
        first_waiting: factor on the wait for other prompts at the start; a number.
        first_slot: factor on the wait for a free place, with one place fewer than sequences; a number.
        stream_steps: decode steps that a first token waits for those it is streamed with; a number.
    """

    host: float = 0.5e-3
    host_per_sequence: float = 25e-6
    skew: float = 2e-6
    prompt_launch: float = 0.0
    prompt_factor: float = 1.0
    linear_factor: float = 1.0
    first: float = 20e-3
    first_prompts: float = 1.0
    first_waiting: float = 1.0
    first_slot: float = 0.0
    stream_steps: float = 0.0

    def host_seconds(self, sequences: float) -> float:
        """Seconds of the host in a step of so many sequences."""
        return self.host + self.host_per_sequence * sequences

    def late_seconds(self, tp: int) -> float:
        """Seconds of a layer that its two all-reduces wait for the latest rank."""
        return late_all_reduces(tp) * self.skew


CONSTANT_NAMES = [one.name for one in fields(ServingConstants)]
NO_CONSTANTS = ServingConstants(host=0.0, host_per_sequence=0.0, skew=0.0, first=0.0)
"""Constants that add nothing to the measured parts."""


# Fitted constants by engine, GPU and format, with the errors that the fit left.

Group = tuple[str, str, str]
"""Engine, GPU and format."""
FITTED_PATH = Path(__file__).with_name("serving_constants.json")


class FittedConstants(NamedTuple):
    """Constants with their origin and the range of what they predict.

    Attributes:
        constants: constants.
        groups: engine, GPU and format of the runs behind them.
        runs: runs behind the constants.
        most_sequences: most sequences at once in any of them.
        own: True where runs of this engine, GPU, format and model are behind them.
        tpot_range: relative half-width of the TPOT's range.
        ttft_range: relative half-width of the TTFT's range.
    """

    constants: ServingConstants
    groups: Sequence[Group]
    runs: int
    most_sequences: int
    own: bool
    tpot_range: float
    ttft_range: float

    @property
    def source(self) -> str:
        """Runs behind the constants: `60 served runs of trtllm on h100_sxm in fp8`."""
        runs = f"{self.runs} served runs of {', '.join(sorted({engine for engine, *_ in self.groups}))}"
        if len(self.groups) == 1:
            _, gpu, dtype = self.groups[0]
            return f"{runs} on {gpu} in {dtype}" + ("" if self.own else ", of another model")
        return f"{runs}, none of them on this GPU in this format"


def find_constants(engine: str, gpu: str, dtype: str, model: str) -> FittedConstants:
    """Constants for an engine on a GPU in a format, for a model's slug.

    Without runs of its own, the range is that of a group left out of the fit, and so is that of a model without runs.
    """
    fitted = read_fitted()
    records = {_group_of(one): one for one in fitted["groups"]}
    groups = groups_behind(records, (engine, gpu, dtype))
    own = groups == [(engine, gpu, dtype)] and model in records[groups[0]]["models"]
    ranges = records[groups[0]] if own else fitted["elsewhere"]
    return FittedConstants(
        constants=choose_constants(constants_by_group(), (engine, gpu, dtype)),
        groups=groups,
        runs=sum(records[group]["runs"] for group in groups),
        most_sequences=max(records[group]["most_sequences"] for group in groups),
        own=own,
        tpot_range=ranges["tpot_range"],
        ttft_range=ranges["ttft_range"],
    )


def choose_constants(fitted: Mapping[Group, ServingConstants], asked: Group) -> ServingConstants:
    """Constants of a group; without runs of its own, the mean over the engine's groups.

    A factor on linears belongs to a format, so other formats do not count for it.
    """
    groups = groups_behind(fitted, asked)
    if groups == [asked]:
        return fitted[asked]
    mean = {name: fmean(getattr(fitted[group], name) for group in groups) for name in CONSTANT_NAMES}
    factors = [fitted[group].linear_factor for group in groups if group[2] == asked[2]]
    return ServingConstants(**(mean | {"linear_factor": fmean(factors) if factors else 1.0}))


def groups_behind(fitted: Iterable[Group], asked: Group) -> list[Group]:
    """Groups whose constants serve: the group itself, else all of the engine, else all."""
    found = list(fitted)
    return [one for one in found if one == asked] or [one for one in found if one[0] == asked[0]] or found


def constants_by_group() -> dict[Group, ServingConstants]:
    """Constants of every group that has runs."""
    return {_group_of(one): ServingConstants(**one["constants"]) for one in read_fitted()["groups"]}


def _group_of(record: dict[str, Any]) -> Group:
    return record["engine"], record["gpu"], record["dtype"]


@cache
def read_fitted() -> dict[str, Any]:
    """Content of the file of fitted constants, which `python -m reports score --refit` writes."""
    found: dict[str, Any] = json.loads(FITTED_PATH.read_text(encoding="utf-8"))
    return found
