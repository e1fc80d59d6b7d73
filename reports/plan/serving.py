"""Served load: TPOT and TTFT of an engine that takes prompts in beside decode.

An engine with in-flight batching keeps a number of sequences, and reads a new prompt whenever one of them ends. Its
TPOT is a decode step, the host's time, and its share of the steps that take a prompt along. All sequences start at
once in the runs that constants are fitted on, so the first prompts wait for each other.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from reports.plan.estimate import sum_costs
from reports.plan.step import PartCosts, PromptChunk, max_sequences
from specs.parallel import Deployment

# The engine's way with prompts.

PROMPTS_FIRST = ("sglang",)
"""Engines that read all waiting prompts before they go on with decode."""
WAVE_TOKENS = 8192
"""Prompt tokens that such an engine reads in one step: its default chunk."""
START_SHARE = 20
"""Sequences for each prompt that a new one waits for, in the mean over a run of ten requests a sequence."""


class ServedLoad(NamedTuple):
    """Load of one engine: `concurrency` sequences of `isl` prompt and `osl` new tokens."""

    isl: int
    osl: int
    concurrency: int

    @property
    def context(self) -> int:
        """Tokens in a sequence's cache in the mean over its life."""
        return self.isl + self.osl // 2


class StepFeatures(NamedTuple):
    """Figures of a step that constants multiply, in seconds where not said otherwise.

    Attributes:
        decode: step of all sequences, without the linears.
        linears: linears of that step.
        prompt: what one prompt adds to a step.
        prompts: prompts in a step; a number.
        waiting: prompts that a new one waits for at the start; a number.
        layers: layers of the model; a number.
        all_reduces: all-reduces in a step times 1 - 1/tp; a number.
        sequences: sequences in a step; a number.
    """

    decode: float
    linears: float
    prompt: float
    prompts: float
    waiting: float
    layers: float
    all_reduces: float
    sequences: float


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
        first_steps: decode steps until the first token; a number. Engines that stream several tokens at once wait.
        first_waiting: factor on the wait for other prompts at the start; a number.
    """

    host: float = 0.5e-3
    host_per_sequence: float = 25e-6
    skew: float = 2e-6
    prompt_launch: float = 0.0
    prompt_factor: float = 1.0
    linear_factor: float = 1.0
    first: float = 20e-3
    first_steps: float = 1.0
    first_waiting: float = 1.0


NO_CONSTANTS = ServingConstants(host=0.0, host_per_sequence=0.0, skew=0.0, first=0.0)
"""Constants that add nothing to the measured parts."""


def step_features(parts: PartCosts, deployment: Deployment, load: ServedLoad) -> StepFeatures:
    """Figures of a step of this load, from measured parts.

    Sequences that memory does not hold wait, and are in no step.

    Raises:
        MissingMeasurementError: a part was not measured.
    """
    tp, model = deployment.tp, parts.query.truncated_model
    sequences = min(load.concurrency, max(1, max_sequences(deployment, parts.query, parts.profile)))
    plain = parts.layer_parts(tp, sequences, PromptChunk(), tp)
    decode = model.layers * sum_costs(plain.values()).seconds
    longer = model.layers * parts.layer(tp, sequences, PromptChunk(load.isl, load.isl), tp).seconds
    linears = model.layers * plain["linears"].seconds
    if parts.variant.implementation in PROMPTS_FIRST:  # a sequence waits for the prompts behind its own
        at_once = WAVE_TOKENS / load.isl
        in_step, waiting = max(0.0, 1 - at_once / sequences) / 2, (sequences + at_once) / 2
    else:
        in_step, waiting = 1.0, sequences / START_SHARE
    return StepFeatures(
        decode=decode - linears + parts.head(tp, sequences, tp).seconds,
        linears=linears,
        prompt=longer - decode,
        prompts=in_step * sequences / load.osl,
        waiting=waiting,
        layers=model.layers,
        all_reduces=2 * model.layers * (1 - 1 / tp),
        sequences=sequences,
    )


def tpot_seconds(features: StepFeatures, constants: ServingConstants) -> float:
    """Seconds for each token after the first; arrays as figures or constants give an array."""
    return _step_seconds(features, constants) + features.prompts * _prompt_seconds(features, constants)


def ttft_seconds(features: StepFeatures, constants: ServingConstants) -> float:
    """Seconds until the first token, in the mean over a run that starts all sequences at once."""
    prompts = 1 + constants.first_waiting * features.waiting
    steps = constants.first_steps * _step_seconds(features, constants)
    return constants.first + steps + prompts * _prompt_seconds(features, constants)


def _step_seconds(features: StepFeatures, constants: ServingConstants) -> float:
    """Seconds of a decode step: measured parts, the host, and waits for late ranks."""
    host = constants.host + constants.host_per_sequence * features.sequences
    parts = features.decode + constants.linear_factor * features.linears
    return parts + host + constants.skew * features.all_reduces


def _prompt_seconds(features: StepFeatures, constants: ServingConstants) -> float:
    """Seconds that one prompt adds to a step."""
    return constants.prompt_factor * features.prompt + constants.prompt_launch * features.layers


# Fitted constants by engine, GPU and format, with the errors that the fit left.

Group = tuple[str, str, str]
"""Engine, GPU and format."""
FITTED_PATH = Path(__file__).with_name("serving_constants.json")


class FittedConstants(NamedTuple):
    """Constants with their origin and the range of what they predict.

    Attributes:
        constants: constants.
        group: engine, GPU and format of the runs behind them.
        own: True where `group` is what was asked for.
        tpot_range: relative half-width of the TPOT's range.
        ttft_range: relative half-width of the TTFT's range.
    """

    constants: ServingConstants
    group: Group
    own: bool
    tpot_range: float
    ttft_range: float


def find_constants(engine: str, gpu: str, dtype: str) -> FittedConstants:
    """Constants for an engine on a GPU in a format.

    Without runs of its own, those of the engine on this GPU in another format serve, then those of the engine on
    another GPU, then those of another engine. The range is then that of a group left out of the fit.
    """
    fitted, asked = read_fitted(), (engine, gpu, dtype)
    groups = {(one["engine"], one["gpu"], one["dtype"]): one for one in fitted["groups"]}
    group = min(groups, key=lambda one: unlikeness(one, asked))
    ranges = groups[group] if group == asked else fitted["elsewhere"]
    constants = ServingConstants(**groups[group]["constants"])
    return FittedConstants(constants, group, group == asked, ranges["tpot_range"], ranges["ttft_range"])


def unlikeness(a: Group, b: Group) -> int:
    """Measure how unlike two groups are: engines count most, then GPUs; 0 for the same group."""
    return sum(weight * (one != other) for weight, one, other in zip((4, 2, 1), a, b, strict=True))


@cache
def read_fitted() -> dict[str, Any]:
    """Content of the file of fitted constants, which `python -m reports score --refit` writes."""
    found: dict[str, Any] = json.loads(FITTED_PATH.read_text(encoding="utf-8"))
    return found
