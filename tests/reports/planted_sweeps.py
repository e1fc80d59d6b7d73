"""Times over tokens as result files hold them: measured by the suites in passes, or published by frameworks."""

import json
import random
from pathlib import Path

from reports.claims.evidence import collect_evidence
from reports.results import parse
from tests.reports import planted

TOKENS = (1, 2, 4, 8, 16, 32, 64, 125, 128, 129, 192, 256, 257, 512, 1000, 2048, 4096)
FRAMEWORKS = ("vllm", "trtllm", "sglang")
PUBLISHED = {
    "shardbench_schema": 1,
    "source": "a package of tables",
    "gpu": "NVIDIA H200",
    "gpu_memory_bytes": 141_000_000_000,
}
LINEARS = ("qkv", "o", "gate_up", "down")


def roofline(knee, flat=100e-6, overhead=0.0):
    """t(m) of a linear that streams its weights in `flat` seconds and computes from `knee` tokens on."""
    return lambda tokens: flat * max(1.0, tokens / knee) + overhead


def steps(*, one, few, many):
    """t(m) at 1, 125 and 1000 tokens alone."""
    return {1: one, 125: few, 1000: many}.__getitem__


def series(time, tokens=TOKENS, *, rng=None, passes=6, between=0.01, facts=None, **changes):
    """One implementation of one linear; `time` is in seconds by tokens, `facts` are those of the measurement."""
    case = planted.case(**{"question": "sweep", "cache": "cold"} | changes)
    found = []
    for count in tokens:
        labels = (case.question, case.model, case.layer, case.tp, count, case.context, case.dtype, case.distribution)
        name = "-".join(map(str, (*labels, case.implementation, case.kernel, case.cache, case.launch)))
        one = planted.replace(case, name=f"suites/bench_token_sweep.py::bench_sweep[{name}]", tokens=count)
        if rng:
            made = planted.noisy(one, time(count), rng, passes, between)
        else:
            made = planted.measured(one, time(count), passes)
        found.append(planted.replace(made, **(facts or {})))
    return found


def published(time, framework, tokens=TOKENS, *, facts=None, **changes):
    """The same as its source gives it: one figure a point."""
    known = {"clock": "published", "provenance": "published", "framework": framework, "relative_error": None}
    found = series(
        time, tokens, facts=known | (facts or {}), implementation=framework, **{"cache": "unknown"} | changes
    )
    return [planted.replace(one, seconds=((one.median,),)) for one in found]


def by_frameworks(times, tokens=TOKENS, **how):
    """One published series for each of `times`, each by a framework of its own."""
    found = []
    for framework, time in zip(FRAMEWORKS, times, strict=False):
        found += published(time, framework, tokens, **how)
    return found


def ratios_of(*ratios, **how):
    """Published times of 125 and 1000 tokens whose ratios are these, framework by framework."""
    return by_frameworks([steps(one=1e-4, few=1e-4, many=1e-4 * ratio) for ratio in ratios], (125, 1000), **how)


def experts(distribution, *ratios, **how):
    """Published times of a layer's experts; the ratios of 1000 to 125 tokens are given."""
    moe = {"question": "moe", "op": "moe", "layer": "experts", "tp": 1, "model": "qwen3-235b-a22b"}
    return ratios_of(*ratios, distribution=distribution, **moe | how)


def ceilings(read, peak, launch=None, dtype="bf16"):
    """The ceilings of a run, with the launch latency if one is given."""
    found = planted.ceilings(read, peak, dtype)
    if launch:
        bare = {"question": "ceilings", "op": "launch", "kernel": "torch_launch", "flops": 0, "hbm_bytes": 0}
        cut = dict.fromkeys(("model", "layer", "tp", "pp", "n", "k", "tokens"))
        one = planted.case("suites/bench_ceilings.py::bench_launch[torch]", dtype="fp32", **bare, **cut)
        found.append(planted.measured(one, launch))
    return found


def file(measurements, machine=planted.CPU):
    """A result file as it is read, through the same JSON as on the disk."""
    return parse(Path("planted.json"), json.loads(json.dumps(planted.content(measurements, machine))))


def findings(judge, measurements, machine=planted.CPU, **facts):
    """What a claim finds in one file: the overall finding, and the others by scope."""
    whole, *rows = judge(collect_evidence([file(measurements, machine)]), **facts)
    return whole, {row.scope: row for row in rows}


def seeded(seed):
    return random.Random(seed)


def layers(time, tokens=TOKENS, *, context=512, **how):
    """Whole layers in decode: as many sequences as tokens."""
    whole = {"question": "layer", "op": "layer", "layer": "layer", "kernel": "torch_layer", "tp": 1, "context": context}
    found = series(time, tokens, **whole | how)
    return [planted.replace(one, case=planted.replace(one.case, batch=one.case.tokens)) for one in found]
