"""Steps of whole models with planted milliseconds, ledgers, and timelines of a simulated pipeline."""

from specs.measurement import LEDGER_ITEMS
from specs.parallel import Deployment, RankPosition
from tests.reports import planted

TP2 = Deployment(tp=2)
SYNC = Deployment(pp=2, schedule="sync")
ASYNC = Deployment(pp=2, schedule="async", micro_batches=2)
ASYNC4 = Deployment(pp=2, schedule="async", micro_batches=4)
TWO_REPLICAS = Deployment(replicas=2)
TP_SHARES = {"linears": 0.5, "attention": 0.1, "norms": 0.05, "all-reduce": 0.2, "skew": 0.05, "host": 0.1}
"""Of a step under TP."""


def case(deployment=TP2, batch=1, prompt=1, context=128, **changes):
    """A step of Llama-3.2-1B cut to 2 of 16 layers, over two gloo ranks."""
    context = context if prompt == 1 else prompt
    labels = (str(deployment), f"b{batch}", f"p{prompt}", f"ctx{context}", *changes.values())
    facts = {
        "question": "tp_vs_pp",
        "op": "step",
        "kernel": "torch_step",
        "model": "llama-3.2-1b",
        "layer": None,
        "n": None,
        "k": None,
        "layers": 2,
        "vocab": 16000,  # 128256 x 2 / 16 = 16032 are 125.25 x 128: 125 x 128
        "tokens": batch * prompt,
        "batch": batch,
        "context": context,
        "ranks": deployment.ranks,
        "backend": "gloo",
        "wire_bytes_sent_per_rank": 8192 * batch,
    }
    laid = {name: getattr(deployment, name) for name in ("tp", "pp", "replicas", "schedule", "micro_batches")}
    name = f"suites/bench_tp_vs_pp.py::bench_step[{'-'.join(map(str, labels))}]"
    return planted.case(name, **{**facts, **laid, "partition": deployment.partition, **changes})


def step(deployment=TP2, ms=10.0, batch=1, passes=6, shares=None, timeline=None, **how):
    """Milliseconds of every sample, or a list with those of each pass; shares likewise, of every stage."""
    one = case(deployment, batch, **how)
    by_pass = ms if isinstance(ms, list) else [ms] * passes
    split = shares if isinstance(shares, list) else [shares or TP_SHARES] * len(by_pass)
    ledgers = [[dict(one)] * deployment.pp for one in split]
    return planted.measured(one, [(1e-3 * turn,) * 3 for turn in by_pass], ledgers=ledgers, timeline=timeline)


def busy_shares(compute, idle=0.0):
    """Shares of a stage that computes and waits, and hops in what is left."""
    return {"linears": compute, "idle": idle, "hop": 1 - compute - idle}


def simulated_timeline(deployment, steps, compute, hop, seconds=None):
    """A timeline of stages in a closed loop: each one computes `compute` s a microbatch and sends it on in `hop` s."""
    m, pp, blocks = deployment.micro_batches, deployment.pp, []
    free, ready = [0.0] * pp, [0.0] * m
    for turn in range(steps):
        for slot in range(m):
            for stage in range(pp):
                rank, start = deployment.rank(RankPosition(0, stage, 0)), max(free[stage], ready[slot])
                if start > free[stage]:
                    blocks.append([rank, "idle", free[stage], start, turn, slot])
                done = start + compute
                blocks += [[rank, "compute", start, done, turn, slot], [rank, "hop", done, done + hop, turn, slot]]
                free[stage] = ready[slot] = done + hop
    window = max(free)
    blocks += [[rank, "idle", end, window, steps - 1, -1] for rank, end in enumerate(free) if end < window]
    return {"seconds": seconds or window, "blocks": blocks}


def ledger(timeline, deployment):
    """Shares of each stage as its timeline has them, compute among the linears."""
    found = [dict.fromkeys(LEDGER_ITEMS, 0.0) for _ in range(deployment.pp)]
    for rank, kind, start, end, _, _ in timeline["blocks"]:
        item = "linears" if kind == "compute" else kind
        found[deployment.position(rank).stage][item] += (end - start) / timeline["seconds"]
    return found
