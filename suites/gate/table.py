"""The kernels' table, from the files that the suite and the layers have just written."""

import os
from pathlib import Path

from suites.gate.layers import ENDING
from suites.gate.step import Place, Step, Verdict, by_exit_status

NO_RESULTS = ("gate.json", "nvbench.json")
ABSENT = "no-result-file.json"


def newest_results(out: Path) -> list[Path]:
    """The suite's latest file in `out`, and that of the layers; either may be missing."""
    files = sorted(
        (path for path in out.glob("*.json") if path.name not in NO_RESULTS), key=lambda path: path.stat().st_mtime
    )
    kinds = {path.stem.endswith(ENDING): path for path in files}
    return [kinds[kind] for kind in (False, True) if kind in kinds]


def command(place: Place, _: float) -> list[str]:
    """`python -m reports kernels FILE…`."""
    results = newest_results(place.out) or [place.out / ABSENT]
    return [place.python, "-m", "reports", "kernels", *map(str, results)]


def by_table(status: int | None, output: str) -> Verdict:
    """The table is its own detail."""
    if status and ABSENT in output:
        return Verdict("not_run", "there is no result file of the suite to make it of")
    return Verdict("passed", "above") if status == 0 else by_exit_status(status, output)


STEP = Step(
    name="table",
    purpose="python -m reports kernels: ours beside cuBLAS and cuBLASLt, from the suite's file",
    seconds=10,
    least_seconds=3,
    command=command,
    packages=("typer", "rich", "scipy"),
    environment={"COLUMNS": os.environ.get("COLUMNS", "140")},
    launches=False,
    memory_gib=0.0,
    shown=True,
    judge=by_table,
)
