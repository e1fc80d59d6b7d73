"""A second opinion on the planner: TP 8 against async PP 8 of Llama-3-70B in bf16, recomputed without its code.

Composes one decode step of 8 GPUs at context 256 from files of `python -m reports import aiconfigurator`. Run as
`python tests/reports/plan/independent_planner.py FILE…`. Every time is in seconds, in one of three cases. `mid`: as
published, and a hop starts in 10 us. `low`: it starts in 5 us. `high`: in 20 us, and what the L2 may have held of a
linear's weights is read from memory in addition.
"""

import json
import sys
from bisect import bisect_left
from functools import cache
from itertools import product
from math import inf
from statistics import median

LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCAB, BYTES = 80, 8192, 28672, 64, 8, 128, 128256, 2
CONTEXT, LARGEST_BATCH = 256, 8192
HOP_SECONDS = {"low": 5e-6, "mid": 10e-6, "high": 20e-6}
# The head costs as much as 1.23 layers: with 11 layers at most anywhere, it can have 9 beside it.
STAGE_LAYERS = {"even": (10,) * 8, "balanced": (11, 10, 10, 10, 10, 10, 10, 9)}
ALL_REDUCE_KINDS = {("all_reduce", "custom", "graph", "bf16"): "{}", ("all_reduce", "nccl", "eager", "fp16"): "nccl"}
# By datasheet or driver: memory bytes a second, L2 bytes, memory bytes, link bytes a second in one direction.
DATASHEET = {
    "a100_sxm": (2.039e12, 40 * 2**20, 80e9, 300e9),
    "h100_sxm": (3.35e12, 50 * 2**20, 80e9, 450e9),
    "h200_sxm": (4.8e12, 60 * 2**20, 141e9, 450e9),
    "b200_sxm": (7.7e12, 132_644_864, 180e9, 900e9),
    "b300_sxm": (7.7e12, 132_644_864, 270e9, 900e9),
    "l40s": (0.864e12, 96 * 2**20, 48e9, 32e9),
    "rtx_pro_6000_server": (1.597e12, 128 * 2**20, 96e9, 64e9),
}


def pad(points):
    """The least of a size's own time and of all larger sizes' times."""
    return [(size, min(seconds for _, seconds in points[place:])) for place, (size, _) in enumerate(points)]


@cache
class PublishedPoints:
    """The published points of one file, read once: {what: {tokens, sequences or bytes: seconds}}."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            result = json.load(file)
        self.memory_rate, l2_bytes, self.memory_bytes, self.link_rate = DATASHEET[result["machine_info"]["system"]]
        self.points, self.hot_seconds = {}, {}
        for entry in result["benchmarks"]:
            info, seconds = entry["extra_info"], entry["stats"]["data"][0]
            framework, ours = info["framework"], (info.get("model"), info["dtype"]) == ("llama-3-70b", "bf16")
            reduces = ALL_REDUCE_KINDS.get((info["op"], info["implementation"], info["launch"], info["dtype"]))
            if info["op"] == "linear" and ours:
                key, at = (framework, info["tp"], info["layer"]), info["tokens"]
                weights = info["n"] * info["k"] * BYTES
                share = min(1, l2_bytes / (info["copies"] * weights)) if info["maybe_hot"] else 0
                self.hot_seconds[key] = share * weights / self.memory_rate
            elif info["op"] == "attention" and ours and (info["layer"], info["context"]) == ("decode", CONTEXT):
                key, at = (framework, info["tp"], "attention"), info["tokens"]
            elif reduces:
                key, at = (reduces.format(framework), info["ranks"], "all_reduce"), info["message_bytes"]
            else:
                continue
            points = self.points.setdefault(key, {})
            points[at] = min(seconds, points.get(at, inf))  # of several attention kernels the fastest
        self.points = {key: pad(sorted(points.items())) for key, points in self.points.items()}
        self.frameworks = sorted({framework for framework, _, layer in self.points if layer == "qkv"})

    def line(self, key, x):
        """The straight line through the neighbours of x, or the last two; below the smallest point that point."""
        points = self.points[key]
        (smallest, least), (largest, _) = points[0], points[-1]
        if x <= smallest:
            return least
        if x > largest and "all_reduce" in key:
            raise ValueError(f"{key}: {x} bytes are above the largest message, {largest}")
        right = min(bisect_left(points, (x,)), len(points) - 1)
        (x0, y0), (x1, y1) = points[right - 1], points[right]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)

    def linear(self, key, rows, case):
        return self.line(key, rows) + (self.hot_seconds[key] if case == "high" else 0)

    def all_reduce(self, framework, tp, message_bytes):
        keys = (framework, tp, "all_reduce"), ("nccl", tp, "all_reduce")
        return min(self.line(key, message_bytes) for key in keys if key in self.points) if tp > 1 else 0

    def elementwise(self, tp, rows):
        """Two norms with the residual, rotary, SwiGLU."""
        width = 2 * 4 * HIDDEN + 2 * (HEADS // tp + 2 * (KV_HEADS // tp)) * HEAD_DIM + 3 * INTERMEDIATE // tp
        return 4 * 2e-6 + BYTES * rows * width / self.memory_rate


@cache
def layer_seconds(tables, framework, counted, tp, rows, case):
    total = sum(tables.linear((framework, tp, name), rows, case) for name in ("qkv", "o", "gate_up", "down"))
    total += tables.line((framework, tp, "attention"), rows) + (tables.elementwise(tp, rows) if counted else 0)
    return total + 2 * tables.all_reduce(framework, tp, rows * HIDDEN * BYTES)


@cache
def head_seconds(tables, framework, tp, rows, case):
    """The LM head, and the gather of each rank's best logit."""
    tabulated = max(tp, 2)  # under tp 1 it is twice as wide as under tp 2, the widest that was published
    linear = tabulated / tp * tables.linear((framework, tabulated, "lm_head"), rows, case)
    return linear + tables.all_reduce(framework, tp, 8 * rows * tp)


def tp_step(tables, framework, counted, tp, replicas, batch, case):
    """One stage: all layers and the head, on each replica's share of the batch."""
    layer = layer_seconds(tables, framework, counted, tp, batch // replicas, case)
    return LAYERS * layer + head_seconds(tables, framework, tp, batch // replicas, case)


def pp_step(tables, framework, counted, partition, micro_batches, batch, case, give_up=inf):
    """Eight stages of tp 1 in a closed loop; 1 microbatch is synchronous. Not exact where not below `give_up`."""
    base, extra = divmod(batch, micro_batches)
    busy, hops, back = [], [], HOP_SECONDS[case]
    for rows in (base + (slot < extra) for slot in range(micro_batches)):
        layer = layer_seconds(tables, framework, counted, 1, rows, case)
        busy.append([layers * layer for layers in STAGE_LAYERS[partition]])
        busy[-1][-1] += head_seconds(tables, framework, 1, rows, case)
        hops.append(HOP_SECONDS[case] + rows * HIDDEN * BYTES / tables.link_rate)
    walks = [sum(stages) + 7 * hop + back for stages, hop in zip(busy, hops, strict=True)]
    least = max(*(sum(stage) for stage in zip(*busy, strict=True)), *walks)
    return least if extra == 0 or least >= give_up else simulate_round_seconds(busy, hops, back)


def simulate_round_seconds(busy, hops, back, rounds=24):
    """Seconds a round in the long run: each stage takes the microbatches in their order, as soon as one is there."""
    free, there, ends = [0.0] * len(busy[0]), [0.0] * len(busy), []
    for _ in range(rounds):
        for slot, stages in enumerate(busy):
            now = there[slot]
            for stage, seconds in enumerate(stages):
                free[stage] = max(now, free[stage]) + seconds
                now = free[stage] + hops[slot]
            there[slot] = free[-1] + back
        ends.append(there[-1])
    return (ends[-1] - ends[rounds // 2 - 1]) / (rounds // 2)


def pp_async(tables, framework, counted, partition, batch, case):
    """The faster of 8 and, where they are equal, 16 microbatches."""
    eight = pp_step(tables, framework, counted, partition, 8, batch, case)
    return (
        min(eight, pp_step(tables, framework, counted, partition, 16, batch, case, eight)) if batch % 16 == 0 else eight
    )


def largest_batch(tables, tp, dealt):
    """The largest multiple of 8 that fits on every rank of each stage, 8 microbatches where there are stages."""
    layer = ((2 * HEADS + 2 * KV_HEADS) * HEAD_DIM * HIDDEN + 3 * INTERMEDIATE * HIDDEN) // tp + 2 * HIDDEN
    found = LARGEST_BATCH
    for stage, layers in enumerate(dealt):
        first, last = stage == 0, stage == len(dealt) - 1
        weights = layers * layer + first * VOCAB * HIDDEN + last * (HIDDEN + VOCAB * HIDDEN // tp)
        row = BYTES * (2 * HIDDEN + 2 * INTERMEDIATE // tp) + last * 4 * VOCAB // tp
        cached = BYTES * 2 * layers * (KV_HEADS // tp) * HEAD_DIM * CONTEXT
        left = tables.memory_bytes - 3 * 2**30 - BYTES * weights  # 3 GiB of workspace
        found = min(found, int(left / (cached + row / len(dealt))) // 8 * 8)
    return found


def crossover_of(tables, framework, counted, partition):
    """The first B where PP may be ahead, the first from which on it is, the first from which on it surely is."""
    largest = min(largest_batch(tables, 8, (LAYERS,)), largest_batch(tables, 1, STAGE_LAYERS[partition]))

    def lead(batch, of_tp, of_pp):
        """Seconds by which PP in one case is ahead of TP in another."""
        step = tp_step(tables, framework, counted, 8, 1, batch, of_tp)
        return step - pp_async(tables, framework, counted, partition, batch, of_pp)

    batches = range(8, largest + 1, 8)
    possibly = next((batch for batch in batches if lead(batch, "high", "low") >= 0), inf)
    last_behind = (
        next((batch for batch in reversed(batches) if lead(batch, *cases) <= 0), 0)
        for cases in (("mid", "mid"), ("low", "high"))
    )
    return possibly, *(last + 8 if last + 8 <= largest else inf for last in last_behind)


def crossover(path):
    """Batch where async PP 8 overtakes TP 8: least, middle and greatest of the variants; None where it never does."""
    tables = PublishedPoints(path)
    variants = product(tables.frameworks, (False, True), STAGE_LAYERS)
    low, batch, high = zip(*(crossover_of(tables, *variant) for variant in variants), strict=True)
    ends = {"low": min(low), "batch": median(batch), "high": max(high)}
    return {name: None if value == inf else value for name, value in ends.items()}


def steps(path, batch):
    """Seconds a step: the middle framework, elementwise counted, even stages; None where it cannot be."""
    tables = PublishedPoints(path)

    def middle(step, *how):
        return median(step(tables, framework, True, *how, batch, "mid") for framework in tables.frameworks)

    return {
        "tp8": middle(tp_step, 8, 1),
        "pp8-sync": middle(pp_step, "even", 1),
        "pp8-async8": middle(pp_step, "even", 8) if batch >= 8 else None,
        "tp2x4": middle(tp_step, 2, 4)
        if batch % 4 == 0 and batch // 4 <= largest_batch(tables, 2, (LAYERS,))
        else None,
    }


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(path, crossover(path))  # noqa: T201
        for batch in (1, 64, 256, 1024):
            print(f"  B={batch}", {name: seconds and round(seconds, 6) for name, seconds in steps(path, batch).items()})  # noqa: T201
