"""A copy of the tree as it is being worked on, in which the steps of a page are done."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.steps import Command, Diff, File, Step, missing

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 300


class StepError(AssertionError):
    """A step did not do what its page says; the text begins with page and line."""


def copy(to: Path) -> Path:
    """Every file that git knows or would add, as it is now."""
    listed = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, listed.stdout.split("\0")):
        if (source := ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to / name)
    return to


def do(step: Step, tree: Path, page: str) -> None:
    """Do one step.

    Raises:
        StepError: a change does not apply, a new file is there already, a command fails or prints something else.
    """
    where = f"{page}:{step.line}"
    if isinstance(step, Diff):
        done = _run(["git", "apply", "-"], tree, step.text)
        if done.returncode:
            raise StepError(f"{where}: {done.stderr}")
    elif isinstance(step, File):
        if (tree / step.path).exists():
            raise StepError(f"{where}: {step.path} is there already")
        (tree / step.path).write_text(step.text)
    else:
        _type(step, tree, where)


def _type(step: Command, tree: Path, where: str) -> None:
    done = _run(["bash", "-eu", "-o", "pipefail", "-c", step.command], tree)
    printed = done.stdout + done.stderr
    if done.returncode:
        raise StepError(f"{where}: exit {done.returncode}\n$ {step.command}\n{printed}")
    if (absent := missing(step.shown, printed)) is not None:
        raise StepError(f"{where}: not printed: {absent}\n$ {step.command}\n{printed}")


def environment(tree: Path) -> dict[str, str]:
    """Variables of a command: this Python's programs come first, and nothing of what the tests around it have set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "COLUMNS": "150", "GIT_CEILING_DIRECTORIES": str(tree.parent)}


def _run(command: list[str], tree: Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=tree, env=environment(tree), input=text,
        capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
