"""Whole layers and their parts, attention, and the GEMM of prefill: the cases that matter most, and their ceilings."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from specs import layer
from specs.layer import MODEL
from suites.gate.step import MEASURING, RECOVER, Place, Step, Verdict, by_exit_status, leave, options
from suites.gate.suite import Axes, measure, result_path

ENDING = "-layers"
SUITES = ("layer", "attention", "linears", "ceilings")
CHOSEN = (
    "ceilings",
    "bench_prefill and tp8 and not attention",
    "(bench_layer or bench_part) and tp8 and (1tok or 32tok)",
    "bench_decode_attention and (1tok or 32tok)",
)
"""512 and 2048 tokens are the GEMM's alone; attention has its target at tp 1."""
CASES = (*(f"suites/bench_{name}.py" for name in SUITES), "-k", " or ".join(f"({one})" for one in CHOSEN))
AXES: Axes = {
    "--model": (MODEL,),
    "--tp": (1, 8),
    "--tokens": (1, 32, 512, 2048),
    "--context": (8192,),
    "--impl": ("torch", "cublaslt", "triton", *layer.ATTENTION_IMPLEMENTATIONS[2:]),
    "--passes": (3,),
}
"""Without torch.compile, which would take the step's time to compile."""

LAYERS_STEP = Step(
    name="layers",
    purpose="pytest suites/: a layer of Llama-3-70B at TP8 and its parts, decode attention, prefill GEMM",
    seconds=70,
    least_seconds=45,
    command=lambda place, seconds: place.module("layers", "--seconds", f"{seconds:.0f}"),
    packages=MEASURING,
    optional=RECOVER,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Into a file of its own beside the suite's."""
    began, asked = time.monotonic(), options(__doc__, argv, seconds=True)
    return leave(measure(asked, began, result_path(asked.out, ENDING), CASES, AXES), asked.verdict)


# The kernels' table, from the files that the suite and the layers have just written.

NO_RESULTS = ("gate.json", "nvbench.json")
ABSENT = "no-result-file.json"


def newest_results(out: Path) -> list[Path]:
    """The suite's latest file in `out`, and that of the layers; either may be missing."""
    files = sorted(
        (path for path in out.glob("*.json") if path.name not in NO_RESULTS), key=lambda path: path.stat().st_mtime
    )
    kinds = {path.stem.endswith(ENDING): path for path in files}
    return [kinds[kind] for kind in (False, True) if kind in kinds]


def table_command(place: Place, _: float) -> list[str]:
    """`python -m reports kernels FILE…`."""
    results = newest_results(place.out) or [place.out / ABSENT]
    return [place.python, "-m", "reports", "kernels", *map(str, results)]


def by_table(status: int | None, output: str) -> Verdict:
    """The table is its own detail."""
    if status and ABSENT in output:
        return Verdict("not_run", "there is no result file of the suite to make it of")
    return Verdict("passed", "above") if status == 0 else by_exit_status(status, output)


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
    shown=True,
    judge=by_table,
)


if __name__ == "__main__":
    sys.exit(main())
