"""Command-line options of the suites: registered with pytest and checked first."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from specs import layer, traffic
from specs.errors import UserError
from specs.layer import FUSED_GATE_UP, LAYER_PARTS, LINEAR_IMPLEMENTATIONS
from specs.models import find_model
from specs.parallel import PARTITIONS, SCHEDULES
from specs.units import parse_bytes

LINEAR_NAMES = ("qkv", "o", "gate_up", "up", "down", "lm_head")
KNOWN_LAYERS = tuple(dict.fromkeys((*LINEAR_NAMES, *LAYER_PARTS, FUSED_GATE_UP)))
KNOWN_IMPLEMENTATIONS = tuple(
    dict.fromkeys(
        (
            *LINEAR_IMPLEMENTATIONS,
            *layer.ATTENTION_IMPLEMENTATIONS,
            *layer.LAYER_IMPLEMENTATIONS,
            *traffic.COMM_IMPLEMENTATIONS,
        )
    )
)

LIST_OPTIONS = {
    "--model": "models: a slug (llama-3-70b, …), an id of Hugging Face, or the path of a config.json",
    "--layer": f"linears and other parts of a layer: {', '.join(KNOWN_LAYERS)} (up where ungated)",
    "--tp": "tensor-parallel degrees",
    "--pp": "pipeline-parallel degrees; a stage's linears are not cut by it",
    "--tokens": "tokens in a forward pass: the decode batch, or the prompt's length",
    "--context": "tokens that each sequence of a decode batch has in its KV cache",
    "--dtype": "fp32, bf16, fp16",
    "--impl": f"implementations: {', '.join(LINEAR_IMPLEMENTATIONS)}; of attention "
    f"{', '.join(layer.ATTENTION_IMPLEMENTATIONS)};"
    f" of whole layers {', '.join(layer.LAYER_IMPLEMENTATIONS)}; of collectives "
    f"{', '.join(traffic.COMM_IMPLEMENTATIONS)}",
    "--cache": "cold (weights rotate through 32x the last-level cache) or hot (one copy)",
    "--launch": "graph (CUDA graph) or eager",
    "--message": "messages of collectives: 16KiB, 1MiB, …",
    "--gap": "idle milliseconds before each call of a collective; 0 is back-to-back",
    "--late": "milliseconds by which one rank comes late, on purpose, to an all-reduce behind a linear; 0 is never",
    "--batch": "sequences that a whole model decodes, each of which adds a token in a step (default: --tokens)",
    "--prompts": "prompts that it reads in a step, and their length: 4x512 (default: by --tokens over 256)",
    "--replicas": "copies of a whole model, each with its part of the batch (default: all ranks, over tp x pp)",
    "--schedule": f"of a whole model's stages: {', '.join(SCHEDULES)}",
    "--micro-batches": "parts of a batch that are under way at once in the schedule async (default: a part a stage)",
    "--partition": f"how a whole model's layers are dealt to stages: {', '.join(PARTITIONS)}",
}


@dataclass(frozen=True)
class Options:
    """Values of the options; None selects the suite's default for the device."""

    model: tuple[str, ...] | None
    layer: tuple[str, ...] | None
    tp: tuple[int, ...] | None
    pp: tuple[int, ...] | None
    tokens: tuple[int, ...] | None
    context: tuple[int, ...] | None
    dtype: tuple[str, ...] | None
    impl: tuple[str, ...] | None
    cache: tuple[str, ...] | None
    launch: tuple[str, ...] | None
    message: tuple[int, ...] | None
    gap: tuple[float, ...] | None
    late: tuple[float, ...] | None
    batch: tuple[int, ...] | None
    prompts: tuple[tuple[int, int], ...] | None
    replicas: tuple[int, ...] | None
    schedule: tuple[str, ...] | None
    micro_batches: tuple[int, ...] | None
    partition: tuple[str, ...] | None
    device: str | None
    layers: int | None
    ranks: int | None
    rank_timeout: float
    passes: int | None
    budget: float | None
    resume: bool
    list: bool


def add_options(parser: pytest.Parser) -> None:
    """Register the options; a wrong value ends the run before any measurement."""
    group = parser.getgroup("shardbench", "shardbench suites (lists are separated by commas)")
    checks: dict[str, Callable[[str], Any]] = {
        "--model": lambda word: find_model(word).slug,
        "--layer": _choice_of(*KNOWN_LAYERS),
        "--dtype": _choice_of("fp32", "bf16", "fp16"),
        "--impl": _choice_of(*KNOWN_IMPLEMENTATIONS),
        "--cache": _choice_of("cold", "hot"),
        "--launch": _choice_of("graph", "eager"),
        "--message": parse_bytes,
        "--prompts": _prompts,
        "--gap": _milliseconds_of("gap", "0 is back-to-back, 10000 too long"),
        "--late": _milliseconds_of("delay", "0 is never late, 10000 too long"),
        "--schedule": _choice_of(*SCHEDULES),
        "--partition": _choice_of(*PARTITIONS),
    }
    for name, text in LIST_OPTIONS.items():
        group.addoption(name, type=_list_of(checks.get(name, _positive)), default=None, metavar="A,B,…", help=text)
    group.addoption(
        "--device",
        type=_choice_of("cpu", "cuda"),
        metavar="NAME",
        help="cpu or cuda (default: the GPU where there is one; one that torch cannot use ends the run)",
    )
    group.addoption(
        "--layers",
        type=_positive,
        metavar="N",
        help="layers that are kept of a whole model (default: as many as fit; on a CPU two, or one a rank)",
    )
    group.addoption("--ranks", type=_positive, metavar="N", help="ranks that talk (default: one a GPU, 2 on a CPU)")
    group.addoption(
        "--rank-timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="after which a rank that does not answer is given up (default: 60)",
    )
    group.addoption(
        "--passes", type=_positive, metavar="N", help="exactly N passes (default: 6, more for noisy cases in budget)"
    )
    group.addoption(
        "--budget", type=_seconds, metavar="SECONDS", help="end after this time; the first pass is always completed"
    )
    group.addoption("--resume", action="store_true", help="go on from the journal of an interrupted run")
    group.addoption("--list", action="store_true", help="list the cases, measure nothing")


def read_options(config: pytest.Config) -> Options:
    """Values of all options."""
    return Options(**{name: config.getoption(name) for name in Options.__dataclass_fields__})


def _list_of(check: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        words = [word.strip() for word in text.split(",")]
        if not all(words):
            raise ArgumentTypeError(f"{text!r} has an empty member; write values separated by single commas")
        try:
            return tuple(dict.fromkeys(check(word) for word in words))
        except UserError as error:
            raise ArgumentTypeError(str(error)) from error

    return parse


def _choice_of(*known: str) -> Callable[[str], str]:
    def check(word: str) -> str:
        if word not in known:
            raise ArgumentTypeError(f"{word!r} is unknown; choose from {', '.join(known)}")
        return word

    return check


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise ArgumentTypeError(f"{word!r} is not a whole number of at least 1")
    return int(word)


def _prompts(word: str) -> tuple[int, int]:
    """Number and length of prompts, from 4x512; one token would be decode."""
    count, _, length = word.partition("x")
    if not (count.isdecimal() and length.isdecimal() and int(count) >= 1 and int(length) >= 2):
        raise ArgumentTypeError(f"{word!r} is no count and length of prompts; four of 512 tokens are 4x512")
    return int(count), int(length)


def _milliseconds_of(what: str, limits: str) -> Callable[[str], float]:
    def check(word: str) -> float:
        try:
            found = float(word)
        except ValueError:
            found = -1.0
        if not 0 <= found < 1e4:
            raise ArgumentTypeError(f"{word!r} is no {what} in milliseconds; {limits}")
        return found / 1000

    return check


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"{word!r} is not a positive number of seconds")
    return seconds
