"""Count of the product files that four commands enter, measured by a call tracer.

    python -m tests.house.journeys [--tree PATH] [--files]

The journeys are one linear, one decode step of a whole model on two ranks, one plan, and one page.
A file counts when the command's first process enters one of its functions, lambdas or comprehensions.
The bodies of modules and classes do not count. Counting begins at the first product call outside an import.

- files: the count.
- import: those of them that are called only while a later import runs, such as a comprehension at the top of a module.
- workers: further files that only other processes enter; they are not in the count.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.house.tracer.sitecustomize import NOTES, TREE

ROOT = Path(__file__).parents[2]
TRACER = Path(__file__).parent / "tracer"
RESULT = "intel-xeon-2-threads-2026-11-25-d9c5406.json"
"""Input of the plan and the page: a file in `reports/` with the parts and steps of a whole model."""
LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Journey:
    """A command of the product.

    Attributes:
        name: row of the table.
        arguments: of `python -m`; FILE is the result file, and OUT a temporary folder.
    """

    name: str
    arguments: str


LINEAR = "--model llama-3.2-1b --layer o --tokens 1 --tp 1 --pp 1 --dtype bf16 --impl torch --passes 1"
STEP = "--model tiny --layers 2 --tp 2 --pp 1 --batch 1 --context 16 --passes 1 -k bench_decode_step"
JOURNEYS = (
    Journey("one linear", f"pytest suites/bench_linears.py {LINEAR} --benchmark-json=OUT/linear.json"),
    Journey("one step", f"pytest suites/bench_tp_vs_pp.py {STEP} --benchmark-json=OUT/step.json"),
    Journey("one plan", "reports plan FILE --model llama-3.2-1b --gpus 2 --context 512"),
    Journey("one page", "reports html FILE -o OUT/page.html"),
)


@dataclass(frozen=True)
class Entered:
    """Files that a journey enters.

    Attributes:
        called: those that the first process calls outside imports.
        imported: further files that the first process calls only while a module is imported.
        workers: further files that only other processes enter.
    """

    called: frozenset[str]
    imported: frozenset[str]
    workers: frozenset[str]

    @property
    def count(self) -> int:
        """The figure of the journey."""
        return len(self.called) + len(self.imported)

    def lines(self) -> list[str]:
        """List all files in order, with a mark on those of imports and workers."""
        marks = dict.fromkeys(self.imported, "  (import)") | dict.fromkeys(self.workers, "  (worker)")
        return [name + marks.get(name, "") for name in sorted(self.called | marks.keys())]


def find_result(tree: Path) -> Path:
    """Find the result file in any folder of `reports/`."""
    for path in (tree / "reports").rglob(RESULT):
        return path
    raise SystemExit(f"{tree / 'reports'}: has no {RESULT}")


def read_notes(notes: Path) -> Entered:
    """Join the notes of all processes."""
    found: dict[str, set[str]] = {"first call": set(), "first import": set(), "worker": set()}
    for path in notes.iterdir():
        kind = path.name.split("-")[0]
        for line in path.read_text().splitlines():
            when, name = line.split(" ", 1)
            found[kind if kind == "worker" else f"{kind} {when}"].add(name)
    called, imported = found["first call"], found["first import"] - found["first call"]
    return Entered(frozenset(called), frozenset(imported), frozenset(found["worker"] - called - imported))


def travel(journey: Journey, tree: Path) -> Entered:
    """Run a journey in a tree on the CPU and return the files that it enters."""
    tree = tree.resolve()
    result = str(find_result(tree))
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        notes.mkdir()
        arguments = journey.arguments.replace("OUT/", f"{folder}/").split()
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(TRACER), os.environ.get("PYTHONPATH")])),
            TREE: str(tree),
            NOTES: str(notes),
        }
        ended = subprocess.run(
            [sys.executable, "-m", *(result if word == "FILE" else word for word in arguments)],
            cwd=tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_SECONDS,
        )
        if ended.returncode or (arguments[0] == "pytest" and " 1 passed" not in ended.stdout):
            raise SystemExit(f"{journey.name}: exit code {ended.returncode}\n{ended.stdout[-2000:]}")
        return read_notes(notes)


def main() -> None:
    """Print a row for each journey, and its files when they are asked for."""
    parser = argparse.ArgumentParser(description="Count the product files that four commands enter.")
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout to measure; else this one")
    parser.add_argument("--files", action="store_true", help="list the files of each journey")
    asked = parser.parse_args()
    rows = [(journey, travel(journey, asked.tree)) for journey in JOURNEYS]
    lines = [f"{'journey':12}{'files':>7}{'import':>8}{'workers':>9}"]
    for journey, entered in rows:
        lines.append(f"{journey.name:12}{entered.count:7}{len(entered.imported):8}{len(entered.workers):9}")
    if asked.files:
        for journey, entered in rows:
            lines += ["", f"{journey.name}: python -m {journey.arguments}", *entered.lines()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
