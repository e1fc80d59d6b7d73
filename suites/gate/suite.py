"""Steps that run the suites: decode linears, whole layers, the kernels' table.

The suite step: 80 points of Llama-3-70B's decode linears, cold, with the same run's ceilings.
"""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specs import layer
from specs.layer import DECODE_TOKENS, DEFAULT_MODEL, LAYER_LINEARS, LINEAR_IMPLEMENTATIONS, TP_DEGREES
from suites.commit import short_commit
from suites.gate.step import (
    MEASURING_PACKAGES,
    RECOVERY_PACKAGES,
    GateContext,
    Step,
    Verdict,
    judge_exit_status,
    parse_options,
    run_limited,
    run_step,
    timed_program,
    write_verdict,
)

SUITE_CASES = ("suites/", "-k", "bench_decode or ceilings")
SUITE_AXES = {
    "--model": (DEFAULT_MODEL,),
    "--layer": LAYER_LINEARS,
    "--tp": TP_DEGREES,
    "--tokens": DECODE_TOKENS,
    "--impl": LINEAR_IMPLEMENTATIONS,
}
MIN_PASSES = 3
"""Passes below which an interval between passes says little."""

WRONG_PREFIX = "wrong result: "
"""Prefix of the reason of a case whose result was wrong."""
RESULT_NAME_SOURCE = (
    "from suites.environment import *; from kernels.timing.device import current_device as d; print(result_name(d()))"
)
"""Program that prints a result file's name.

It needs its own process: this one holds no CUDA context beside the suites.
"""

Axes = Mapping[str, Sequence[object]]

SUITE_STEP = Step(
    name="suite",
    purpose="pytest suites/: 16 shards of Llama-3-70B x 5 token counts, all implementations, and the ceilings",
    seconds=120,
    least_seconds=60,
    command=timed_program("suite", "suite"),
    packages=MEASURING_PACKAGES,
    optional=RECOVERY_PACKAGES,
)

OVERHEAD_SECONDS = 25.0
"""Seconds beyond the budget: start, the last case's visit, writing the file."""
RECOVER_SECONDS = 10.0
GRACE_SECONDS = 5.0
"""Seconds from interrupt to kill; shorter than the gate's, so no child is left."""
MAX_TRIES = 5
"""Most runs of pytest; each resumes where a GPU fault ended the last."""
MIN_TRY_SECONDS = 30.0


def pytest_command(
    path: Path, budget_seconds: float, cases: Sequence[str], axes: Axes, *, resume: bool = False
) -> list[str]:
    """Command of pytest with a time budget."""
    asked = [word for option, values in axes.items() for word in (option, ",".join(map(str, values)))]
    written = [f"--benchmark-json={path}", "--benchmark-quiet", "--budget", f"{budget_seconds:.0f}"]
    again = ["--resume"] if resume else []
    return [sys.executable, "-m", "pytest", *cases, "-p", "no:cacheprovider", "--color", "no", *written, *asked, *again]


def result_path(out: Path, ending: str = "") -> Path:
    """Path named like files in reports/data/: <gpu>-<date>-<short commit>.json."""
    try:
        ask = [sys.executable, "-c", RESULT_NAME_SOURCE]
        done = subprocess.run(ask, capture_output=True, text=True, timeout=60)  # noqa: S603 - ourselves
    except (OSError, subprocess.TimeoutExpired):
        return out / f"unnamed-{short_commit()}{ending}.json"
    told = done.stdout.strip() if done.returncode == 0 else ""
    return out / f"{told or 'unnamed'}-{short_commit()}{ending}.json"


def main_suite(argv: Sequence[str] | None = None) -> int:
    """Run the decode points and the ceilings."""
    began, asked = time.monotonic(), parse_options(__doc__, argv, seconds=True)
    return write_verdict(run_suites(asked, began, result_path(asked.out), SUITE_CASES, SUITE_AXES), asked.verdict)


def run_suites(asked: Namespace, began: float, path: Path, cases: Sequence[str], axes: Axes) -> Verdict:
    """Run and judge the suites; if cut off, recover the file from its journal.

    Args:
        asked: options of the step.
        began: start of the step, by the monotonic clock.
        path: the result file.
        cases: cases that pytest collects.
        axes: options and their values.
    """
    path.unlink(missing_ok=True)
    journal = path.with_name(f"{path.name}.journal.jsonl")
    journal.unlink(missing_ok=True)
    status: int | None = None
    for tried in range(MAX_TRIES):
        left = asked.seconds - (time.monotonic() - began) - RECOVER_SECONDS
        if tried and left < MIN_TRY_SECONDS:
            break
        sys.stdout.flush()
        told = pytest_command(path, max(10.0, left - OVERHEAD_SECONDS), cases, axes, resume=tried > 0)
        status = run_limited(told, sys.stdout.buffer, left, {}, GRACE_SECONDS)
        if status in (0, None) or not journal.exists() or not has_unreached_cases(path):
            break
        path.unlink(missing_ok=True)  # the journal holds all of it
    if not path.exists() and journal.exists():
        recover = [sys.executable, "-m", "reports", "recover", str(journal), "-o", str(path)]
        subprocess.run(recover, timeout=60)  # noqa: S603 - our own program
    return judge_suite(status, path)


def has_unreached_cases(path: Path) -> bool:
    """Return whether a GPU fault kept cases from being reached.

    The file says so, or pytest died and left none.
    """
    return not path.exists() or any("not reached: " in reason for reason in _failure_reasons(path))


def judge_suite(status: int | None, path: Path) -> Verdict:
    """Pass where the file exists and pytest succeeded.

    The detail counts cases with too few passes for an interval.
    """
    if not path.exists():
        if status is None:
            return Verdict("unfinished", "ended at its limit, and nothing was measured until then")
        return Verdict("failed", f"exit status {status}, no {path.name}")
    figures = {
        "file": path.name,
        "wrong": sum(WRONG_PREFIX in reason for reason in _failure_reasons(path)),
        **_pass_counts(path),
    }
    few = figures["few_passes"]
    told = f"; intervals need more passes: {few} cases have fewer than {MIN_PASSES}" if few else ""
    if status is None:
        return Verdict("unfinished", f"ended at its limit; {path.name} holds what its journal had{told}", figures)
    if status != 0:
        return Verdict("failed", f"exit status {status}: cases failed, see gate.log and {path.name}{told}", figures)
    return Verdict("passed", f"{path.name}{told}", figures)


def _pass_counts(path: Path) -> dict[str, int]:
    passes = [one.get("extra_info", {}).get("passes", 0) for one in _read_json(path).get("benchmarks", [])]
    few = sum(one < MIN_PASSES for one in passes)
    return {"cases": len(passes), "least_passes": min(passes, default=0), "few_passes": few}


def _failure_reasons(path: Path) -> list[str]:
    ours = _read_json(path).get("shardbench", {})
    return [str(one["reason"]) for kind in ("failed", "ended") for one in ours.get(kind, [])]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# Layers step, the cases that matter most: whole layers and their parts, attention, prefill's GEMM, and ceilings.

LAYERS_SUFFIX = "-layers"
LAYERS_SUITES = ("layer", "attention", "linears", "ceilings")
LAYERS_SELECTION = (
    "ceilings",
    "bench_prefill and tp8 and not attention",
    "(bench_layer or bench_part) and tp8 and (1tok or 32tok)",
    "bench_decode_attention and (1tok or 32tok)",
)
"""Selections by pytest's -k.

Only the GEMM has 512 and 2048 tokens. Attention has its target at tp 1.
"""
LAYERS_CASES = (
    *(f"suites/bench_{name}.py" for name in LAYERS_SUITES),
    "-k",
    " or ".join(f"({one})" for one in LAYERS_SELECTION),
)
LAYERS_AXES: Axes = {
    "--model": (DEFAULT_MODEL,),
    "--tp": (1, 8),
    "--tokens": (1, 32, 512, 2048),
    "--context": (8192,),
    "--impl": ("torch", "cublaslt", "triton", *layer.ATTENTION_IMPLEMENTATIONS[2:]),
    "--passes": (3,),
}
"""Axes without torch.compile, which would take the step's time."""

LAYERS_STEP = Step(
    name="layers",
    purpose="pytest suites/: a layer of Llama-3-70B at TP8 and its parts, decode attention, prefill GEMM",
    seconds=70,
    least_seconds=45,
    command=timed_program("layers", "suite"),
    packages=MEASURING_PACKAGES,
    optional=RECOVERY_PACKAGES,
)


def main_layers(argv: Sequence[str] | None = None) -> int:
    """Run the layers into a file beside the suite's."""
    began, asked = time.monotonic(), parse_options(__doc__, argv, seconds=True)
    return write_verdict(
        run_suites(asked, began, result_path(asked.out, LAYERS_SUFFIX), LAYERS_CASES, LAYERS_AXES), asked.verdict
    )


# Table step: the kernels' table, from the files that the suite and the layers have just written.

NON_RESULT_FILES = ("gate.json", "nvbench.json")
MISSING_RESULT = "no-result-file.json"


def newest_results(out: Path) -> list[Path]:
    """Latest files of the suite and of the layers in `out`; either may be missing."""
    files = sorted(
        (path for path in out.glob("*.json") if path.name not in NON_RESULT_FILES),
        key=lambda path: path.stat().st_mtime,
    )
    kinds = {path.stem.endswith(LAYERS_SUFFIX): path for path in files}
    return [kinds[kind] for kind in (False, True) if kind in kinds]


def table_command(context: GateContext, _: float) -> list[str]:
    """Command `python -m reports kernels FILE…`."""
    results = newest_results(context.out) or [context.out / MISSING_RESULT]
    return [context.python, "-m", "reports", "kernels", *map(str, results)]


def judge_table(status: int | None, output: str) -> Verdict:
    """Pass on exit status 0; not_run without a result file."""
    if status and MISSING_RESULT in output:
        return Verdict("not_run", "there is no result file of the suite to make it of")
    return Verdict("passed", "above") if status == 0 else judge_exit_status(status, output)


TABLE_STEP = Step(
    name="table",
    purpose="python -m reports kernels: ours beside cuBLAS and cuBLASLt, from the suite's file",
    seconds=10,
    least_seconds=3,
    command=table_command,
    packages=("typer", "rich", "scipy"),
    environment={"COLUMNS": os.environ.get("COLUMNS", "140")},
    launches=False,
    memory_gib=0.0,
    shows_output=True,
    judge=judge_table,
)


if __name__ == "__main__":
    sys.exit(run_step({"suite": main_suite, "layers": main_layers}))
