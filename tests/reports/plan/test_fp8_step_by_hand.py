"""One fp8 step recomputed by hand from a file's published points, with the standard library alone.

Llama-3-70B under TP 8, 64 sequences at context 2048: linears in fp8, LM head and residual stream in bf16, queries in
bf16 over a cache in fp8. Then the same step in an engine: its host, and late ranks at every all-reduce.
"""

import json
from bisect import bisect_left
from importlib import util
from pathlib import Path

import pytest

from tests.reports.run_reports import run_reports

if util.find_spec("aiconfigurator_core") is None:
    pytest.skip("aiconfigurator-core is not installed (extra `silicon`)", allow_module_level=True)

LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM = 80, 8192, 28672, 64, 8, 128
TP, SEQUENCES, CONTEXT, RESIDUAL_BYTES = 8, 64, 2048, 2
MEMORY_BYTES_PER_SECOND = 4.8e12
CONSTANTS = Path(__file__).parents[3] / "reports" / "plan" / "serving_constants.json"


def at(points, size):
    """The straight line between two neighbours of a table in which no size costs more than a larger one."""
    found = sorted(points.items())
    padded = [(one, min(seconds for _, seconds in found[place:])) for place, (one, _) in enumerate(found)]
    right = bisect_left(padded, (size,))
    if padded[right][0] == size or right == 0:
        return padded[right][1]
    (x0, y0), (x1, y1) = padded[right - 1], padded[right]
    return y0 + (y1 - y0) * (size - x0) / (x1 - x0)


def points_of(entries, size, **facts):
    """Least seconds by size of the entries with these facts."""
    found = {}
    for one in entries:
        if all(one["extra_info"].get(name) == value for name, value in facts.items()):
            place, seconds = one["extra_info"][size], one["stats"]["data"][0]
            found[place] = min(seconds, found.get(place, seconds))
    return found


def step_by_hand(entries, framework):
    """Seconds of a step of kernels and all-reduces."""
    linears = sum(
        at(points_of(entries, "tokens", op="linear", layer=layer, tp=TP, dtype="fp8", framework=framework), SEQUENCES)
        for layer in ("qkv", "o", "gate_up", "down")
    )
    facts = {"op": "attention", "layer": "decode", "tp": TP, "context": CONTEXT, "dtype": "bf16", "kv_dtype": "fp8"}
    attention = at(points_of(entries, "tokens", framework=framework, **facts), SEQUENCES)
    columns = 2 * 4 * HIDDEN + 2 * (HEADS + 2 * KV_HEADS) // TP * HEAD_DIM + 3 * INTERMEDIATE // TP
    elementwise = 4 * 2e-6 + RESIDUAL_BYTES * SEQUENCES * columns / MEMORY_BYTES_PER_SECOND
    custom = points_of(
        entries, "message_bytes", op="all_reduce", implementation="custom", ranks=TP, dtype="bf16", launch="graph",
        framework=framework,
    )  # fmt: skip
    nccl = points_of(entries, "message_bytes", op="all_reduce", implementation="nccl", ranks=TP, dtype="fp16")

    def reduce(message):
        return min(at(table, message) for table in (custom, nccl) if table and max(table) >= message)

    head = points_of(entries, "tokens", op="linear", layer="lm_head", tp=TP, dtype="bf16", framework=framework)
    layer = linears + attention + elementwise + 2 * reduce(SEQUENCES * HIDDEN * RESIDUAL_BYTES)
    return LAYERS * layer + at(head, SEQUENCES) + reduce(8 * SEQUENCES * TP)


def added_by_hand(engine):
    """Seconds that the engine's host and late ranks add on an H200 in fp8."""
    groups = json.loads(CONSTANTS.read_text())["groups"]
    (found,) = (one["constants"] for one in groups if (one["engine"], one["gpu"], one["dtype"]) == engine)
    late = 2 * LAYERS * (1 - 1 / TP) * found["skew"]
    return found["host"] + SEQUENCES * found["host_per_sequence"] + late


def test_an_fp8_step_is_the_one_worked_out_by_hand(tmp_path, capsys):
    path = tmp_path / "h200.json"
    asked = ["--model", "llama-3-70b", "--dtype", "fp8"]
    assert run_reports("import", "aiconfigurator", "--system", "h200_sxm", *asked, "-o", path) == 0
    capsys.readouterr()
    more = ["--context", CONTEXT, "--batch", SEQUENCES, "--format", "json"]
    assert run_reports("plan", path, *asked, *more) == 0
    (point,) = (one for one in json.loads(capsys.readouterr().out)["points"] if one["tp"] == TP)
    entries = json.loads(path.read_text())["benchmarks"]
    assert set(point["by_implementation"]) == {"sglang", "trtllm", "vllm"}
    for framework, seconds in point["by_implementation"].items():
        assert seconds == pytest.approx(step_by_hand(entries, framework), rel=1e-6), framework

    engine = point["implementation"]
    assert engine in ("trtllm", "vllm")
    added = added_by_hand((engine, "h200_sxm", "fp8"))
    assert point["engine"]["step_seconds"] == pytest.approx(point["step_seconds"] + added, rel=1e-6)
