"""Names of deployments, models and loads in prose."""

from collections.abc import Collection, Sequence

from reports.formatting import pluralize
from reports.tp_vs_pp.compare import Load, Setting
from specs.models import MODELS, scaled_model
from specs.parallel import Deployment

SETTING_LABELS = {
    "model": "{}",
    "layers": "{} layers",
    "implementation": "{}",
    "backend": "{}",
    "ranks": "{} ranks",
    "context": "ctx{}",
}
"""Formats of the properties that may distinguish settings."""


def deployment_name(one: Deployment) -> str:
    """`TP 2`, `async PP 4 with 8 micro-batches, balanced`, `2 replicas of TP 2`."""
    parts = [f"TP {one.tp}"] if one.tp > 1 else []
    parts += [f"{one.schedule} PP {one.pp}"] if one.pp > 1 else []
    name = " x ".join(parts)
    if one.schedule == "async":
        name += f" with {one.micro_batches} micro-batch{'es' * (one.micro_batches > 1)}"
    name += f", {one.partition}" if one.partition != "even" else ""
    if one.replicas > 1:
        return f"{one.replicas} replicas{f' of {name}' if name else ''}"
    return name or "one rank"


def model_description(setting: Setting) -> str:
    """Model name, or `llama-3.2-1b cut to 2 of 16 layers, vocabulary in proportion`."""
    model = MODELS.get(setting.model)
    if model is None:
        return f"{setting.model} of {setting.layers} layers"
    if setting.layers >= model.layers:
        return setting.model
    proportion = setting.vocab == scaled_model(model, setting.layers).vocab
    vocabulary = "vocabulary in proportion" if proportion else f"vocabulary {setting.vocab}"
    return f"{setting.model} cut to {setting.layers} of {model.layers} layers, {vocabulary}"


def is_truncated(setting: Setting) -> bool:
    """Return whether the model has more layers than ran."""
    model = MODELS.get(setting.model)
    return model is not None and setting.layers < model.layers


def distinguishing_label(setting: Setting, among: Collection[Setting]) -> str:
    """Label that distinguishes a setting: `ctx4096`, `llama-3-8b 4 layers ctx128`."""
    facts = {name: form for name, form in SETTING_LABELS.items() if len({getattr(one, name) for one in among}) > 1}
    return " ".join(form.format(getattr(setting, name)) for name, form in facts.items() if getattr(setting, name))


def load_label(load: Load) -> str:
    """`B=64`, or `4x512` for four prompts of 512 tokens."""
    return f"B={load.batch}" if load.prompt == 1 else f"{load.batch}x{load.prompt}"


def load_heading(load: Load) -> str:
    """`batch 64`, `4 prompts of 512`."""
    return f"batch {load.batch}" if load.prompt == 1 else f"{pluralize(load.batch, 'prompt')} of {load.prompt}"


def load_phrase(load: Load) -> str:
    """`at 64`, `for 4 prompts of 512`."""
    return f"at {load.batch}" if load.prompt == 1 else f"for {load_heading(load)}"


def describe_loads(chosen: Sequence[Load], among: Sequence[Load], every: str = "every") -> str:
    """`at every batch from 1 to 1024`, `from a batch of 256 on`.

    Both sequences are by rising load. `every` is any where the sentence denies something.
    """
    if _is_run_of_lengths(chosen, among):
        return f"for {load_heading(chosen[0])} to {chosen[-1].prompt}"
    if any(load.prompt > 1 for load in among):
        return f"for {join_with_and([load_heading(load) for load in chosen])}"
    first, last = chosen[0].batch, chosen[-1].batch
    if len(chosen) == 1:
        return f"at a batch of {first}"
    if len(chosen) == len(among):
        return f"at {every} batch from {first} to {last}"
    if list(chosen) == list(among[: len(chosen)]):
        return f"up to a batch of {last}"
    if list(chosen) == list(among[-len(chosen) :]):
        return f"from a batch of {first} on"
    return f"at batches of {join_with_and([str(load.batch) for load in chosen])}"


def _is_run_of_lengths(chosen: Sequence[Load], among: Sequence[Load]) -> bool:
    """Return whether the loads are equal prompt counts of adjacent lengths."""
    lengths = [load.prompt for load in among]
    start = lengths.index(chosen[0].prompt) if chosen else 0
    alike = len({load.batch for load in among}) == 1 and len(set(lengths)) == len(lengths)
    return len(chosen) > 2 and alike and list(chosen) == list(among[start : start + len(chosen)])


def join_with_and(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
