"""Served load: TPOT and TTFT of an engine that takes prompts in beside decode.

An engine with in-flight batching keeps a number of sequences, and reads a new prompt whenever one of them ends. Its
TPOT is a decode step, the host's time, and its share of the steps that take a prompt along. All sequences start at
once in the runs that constants are fitted on, so the first prompts wait for each other.
"""

from typing import NamedTuple

from reports.plan.capacity import max_sequences
from reports.plan.estimate import ABSENT_COST, sum_costs
from reports.plan.serving_constants import ServingConstants, late_all_reduces
from reports.plan.step import PartCosts, PromptChunk
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
        linears: linears of that step; 0 where its layers were measured as a whole.
        prompt: what one prompt adds to a step.
        prompts: prompts in a step; a number.
        waiting: prompts that a new one waits for at the start; a number.
        slot: tokens that a sequence waits for a place, where there is one place fewer than sequences; a number.
        layers: layers of the model; a number.
        all_reduces: all-reduces in a step times 1 - 1/tp; a number.
        sequences: sequences in a step; a number.
        streamed: 1 where the engine may stream several tokens at once, else 0.
    """

    decode: float
    linears: float
    prompt: float
    prompts: float
    waiting: float
    slot: float
    layers: float
    all_reduces: float
    sequences: float
    streamed: float = 0.0


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
    linears = model.layers * plain.get("linears", ABSENT_COST).seconds
    if parts.variant.implementation in PROMPTS_FIRST:  # a sequence waits for the prompts behind its own
        at_once = WAVE_TOKENS / load.isl
        in_step, waiting = max(0.0, 1 - at_once / sequences) / 2, (sequences + at_once) / 2
        wave = min(WAVE_TOKENS, sequences * load.isl)
        prompt = sum_costs(parts.prompt_parts(tp, wave, load.isl).values()).seconds * load.isl / wave
    else:
        in_step, waiting = 1.0, sequences / START_SHARE
        longer = parts.layer_parts(tp, sequences, PromptChunk(load.isl, load.isl), tp)
        prompt = sum_costs(longer.values()).seconds - decode / model.layers
    return StepFeatures(
        decode=decode - linears + sum_costs(parts.head_parts(tp, sequences, tp).values()).seconds,
        linears=linears,
        prompt=model.layers * prompt,
        prompts=in_step * sequences / load.osl,
        waiting=waiting,
        slot=load.osl / sequences * (1 - 1 / sequences),  # a single sequence always has a place
        layers=model.layers,
        all_reduces=model.layers * late_all_reduces(tp),
        sequences=sequences,
    )


def tpot_seconds(features: StepFeatures, constants: ServingConstants) -> float:
    """Seconds for each token after the first; arrays as figures or constants give an array."""
    return _step_seconds(features, constants) + features.prompts * _prompt_seconds(features, constants)


def ttft_seconds(features: StepFeatures, constants: ServingConstants) -> float:
    """Seconds until the first token, in the mean over a run that starts all sequences at once.

    A prompt counts in full, because nothing of it is hidden behind decode.
    """
    prompts = constants.first_prompts + constants.first_waiting * features.waiting
    reading = prompts * (features.prompt + constants.prompt_launch * features.layers)
    place = constants.first_slot * features.slot * tpot_seconds(features, constants)
    steps = 1 + constants.stream_steps * features.streamed
    return constants.first + steps * _step_seconds(features, constants) + reading + place


def _step_seconds(features: StepFeatures, constants: ServingConstants) -> float:
    """Seconds of a decode step: measured parts, the host, and waits for late ranks."""
    host = constants.host_seconds(features.sequences)
    parts = features.decode + constants.linear_factor * features.linears
    return parts + host + constants.skew * features.all_reduces


def _prompt_seconds(features: StepFeatures, constants: ServingConstants) -> float:
    """Seconds that one prompt adds to a step."""
    return constants.prompt_factor * features.prompt + constants.prompt_launch * features.layers
