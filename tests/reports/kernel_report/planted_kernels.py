"""Decode linears of Llama-3-70B with planted times."""

from itertools import product

from reports.kernel_report import points
from reports.kernel_report.points import select_linears
from reports.results import load
from specs.layer import LAYER_LINEARS, TP_DEGREES
from specs.models import find_model
from specs.parallel import Split
from tests.reports import planted
from tests.reports.planted import measured

LINEARS = [Split(find_model("llama-3-70b"), tp).linear(layer) for layer in LAYER_LINEARS for tp in TP_DEGREES]
O_TP8 = Split(find_model("llama-3-70b"), 8).linear("o")


def linear(implementation, tokens=1, shard=O_TP8, **changes):
    """The case of a shard: 1 byte and 1 flop unless said otherwise, so that floors are easy."""
    name = f"{'-'.join(map(str, shard))}-{tokens}-{implementation}-{sorted(changes.items())}"
    facts = {"implementation": implementation, "kernel": f"{implementation}_kernel", "launch": "graph"}
    return planted.case(name, **({"hbm_bytes": 1, "flops": 1, "tokens": tokens} | facts | shard._asdict() | changes))


def one_point(seconds, **how):
    """One point: seconds by implementation, dashes of names as underscores."""
    return [measured(linear(name.replace("_", "-"), **how), value) for name, value in seconds.items()]


def all_points(times, only=lambda shard, tokens: True, **how):
    """The 80 points; `times` gives seconds by implementation for a shard and tokens."""
    return [
        one
        for shard, tokens in product(LINEARS, points.DECODE_TOKENS)
        if only(shard, tokens)
        for one in one_point(times(shard, tokens), shard=shard, tokens=tokens, **how)
    ]


def selection(path, measurements, wanted=None, machine=planted.H200):
    """What the command sees of a file with these measurements."""
    return select_linears(load(planted.write(path / "x.json", measurements, machine=machine)), wanted)
