"""Reading what NVBench writes with --json: means of its cold and its batch measurement."""

import json
from pathlib import Path
from typing import Any

COLD, BATCH = "nv/cold/time/gpu/mean", "nv/batch/time/gpu/mean"


def benchmark_name(case: str, mode: str, calls: int) -> str:
    """A case's name in NVBench: with the mode, and the calls that one launch stands for."""
    return f"{case}.{mode}.{calls}"


def seconds_by_case(path: Path) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """({case: {mode: seconds a call}}, {case and mode: why there is none}).

    Raises:
        ValueError: the file is no NVBench result.
    """
    try:
        benchmarks = json.loads(path.read_text())["benchmarks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is no NVBench result ({type(error).__name__})") from error
    times: dict[str, dict[str, float]] = {}
    without: dict[str, str] = {}
    for benchmark in benchmarks:
        case, mode, calls = benchmark["name"].rsplit(".", 2)
        for state in benchmark["states"]:
            mean = None if state.get("is_skipped") else _mean(state, BATCH if mode == "batch" else COLD)
            if mean is None:
                without[f"{case} {mode}"] = state.get("skip_reason") or "no time in it"
            else:
                times.setdefault(case, {})[mode] = mean / int(calls)
    return times, without


def _mean(state: dict[str, Any], tag: str) -> float | None:
    """NVBench writes numbers as strings, {"name": "value", "type": "float64", "value": "1.2e-05"}."""
    for summary in state.get("summaries") or ():
        if summary["tag"] == tag:
            return next((float(one["value"]) for one in summary["data"] if one["name"] == "value"), None)
    return None
