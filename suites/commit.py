"""Commit of a result: from git, or from a variable in a tree without history."""

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
    """Full hash from git, or SHARDBENCH_COMMIT without .git; None if unknown."""
    if not (ROOT / ".git").exists():
        return os.environ.get(COMMIT_VARIABLE, "").strip() or None
    try:
        head = ["git", "rev-parse", "HEAD"]
        told = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, timeout=60)  # noqa: S603 - git alone
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() if told.returncode == 0 else None


def short_commit() -> str:
    """Short hash for names of result files; `nogit` if unknown."""
    return (commit_hash() or "nogit")[:SHORT_LENGTH]


def commit_info() -> dict[str, Any] | None:
    """Commit block of a result file from SHARDBENCH_COMMIT; None with .git."""
    if (ROOT / ".git").exists() or not (told := commit_hash()):
        return None
    return {"id": told, "time": None, "author_time": None, "dirty": False, "project": ROOT.name, "branch": "(unknown)"}
