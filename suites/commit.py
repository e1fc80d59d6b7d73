"""The commit that a figure belongs to: from git, or from a variable where a copy of the tree has no history."""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

COMMIT_VARIABLE = "SHARDBENCH_COMMIT"
ROOT = Path(__file__).parent.parent
SHORT_LENGTH = 7


@cache
def commit_hash() -> str | None:
    """The full hash by git; without .git what SHARDBENCH_COMMIT holds; None where neither says it."""
    if not (ROOT / ".git").exists():
        return os.environ.get(COMMIT_VARIABLE, "").strip() or None
    try:
        head = ["git", "rev-parse", "HEAD"]
        told = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, timeout=60)  # noqa: S603 - git alone
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() if told.returncode == 0 else None


def short_commit() -> str:
    """As result files are named by it; `nogit` where it is unknown."""
    return (commit_hash() or "nogit")[:SHORT_LENGTH]


def commit_info() -> dict[str, Any] | None:
    """As a result file holds it, where there is no .git but the variable; None where git or nobody says it."""
    if (ROOT / ".git").exists() or not (told := commit_hash()):
        return None
    return {"id": told, "time": None, "author_time": None, "dirty": False, "project": ROOT.name, "branch": "(unknown)"}
