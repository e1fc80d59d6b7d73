"""Whole layers and their parts with planted milliseconds."""

from reports import results
from reports.ledger import ledger
from reports.ledger.ledger import build_ledger
from tests.reports import planted

OPS = {"attention": "attention", "norm": "rmsnorm", "rotary": "rotary", "swiglu": "swiglu", "layer": "layer"}
PLAIN = {"qkv": 2.0, "o": 1.0, "gate_up": 6.0, "down": 3.0, "attention": 1.5, "norm": 0.1, "rotary": 0.1, "swiglu": 0.2}
"""Milliseconds of a call: linears 12, attention 1.5, norms 2 x 0.1 + 0.1 + 0.2 = 0.5, together 14."""
CALLS = {"norm": 2}


def case(layer="layer", implementation="torch", launch="eager", tokens=1, context=512, **changes):
    """A layer of Llama-3.2-1B in decode, or one of its parts; 1e9 bytes and 2e9 flops."""
    facts = {
        "question": "layer",
        "op": OPS.get(layer, "linear" if layer != "gate_up_swiglu" else "gate_up_swiglu"),
        "kernel": f"{implementation}_{layer}",
        "model": "llama-3.2-1b",
        "tp": 1,
        "n": None,
        "k": None,
        "batch": tokens,
        "per_layer": CALLS.get(layer, 1),
    }
    labels = (layer, implementation, launch, tokens, context, *changes.values())
    name = f"suites/bench_layer.py::bench_layer[{'-'.join(map(str, labels))}]"
    shape = {"layer": layer, "implementation": implementation, "launch": launch, "tokens": tokens, "context": context}
    return planted.case(name, **{**facts, **shape, **changes})


def timed(one, ms, passes=6):
    """Milliseconds of every sample, or a list with those of each pass."""
    by_pass = ms if isinstance(ms, list) else [ms] * passes
    return planted.measured(one, [(1e-3 * turn,) * 3 for turn in by_pass])


def parts(times=PLAIN, *, passes=6, **how):
    """Each part alone."""
    return [timed(case(layer, **how), ms, passes) for layer, ms in times.items()]


def whole(ms, *, passes=6, **how):
    """All of a layer."""
    return timed(case(**how), ms, passes)


def latency(us, passes=6, launch="eager"):
    """The launch latency of the run."""
    cut = dict.fromkeys(("model", "layer", "tp", "pp", "n", "k", "tokens"))
    facts = {"question": "ceilings", "op": "launch", "kernel": "torch_launch", "flops": 0, "hbm_bytes": 0}
    one = planted.case(f"suites/bench_ceilings.py::bench_launch[{launch}]", launch=launch, dtype="fp32", **facts, **cut)
    return timed(one, 1e-3 * us, passes)


def write(path, measurements, machine=planted.CPU):
    """A result file of these."""
    return planted.write(path / "layers.json", measurements, machine)


def ledgers(path, measurements, machine=planted.CPU):
    """The ledger of each whole layer, by implementation."""
    found = ledger.collect_layers(results.load(write(path, measurements, machine)))
    return {one.case.implementation: build_ledger(one) for one in found}
