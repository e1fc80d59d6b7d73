"""What a search has tried, a line a try, so that the next one goes on from there."""

import json
import os
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import IO, Any, NamedTuple

from specs.errors import UserError


class Trial(NamedTuple):
    """One try.

    Attributes:
        made: the GPU, the versions and the kernel that it was made with.
        shape: for which.
        config: what was tried.
        seconds: cold mean of a call; inf where it was wrong or did not run.
        problem: why, then.
    """

    made: dict[str, str]
    shape: Any
    config: Any
    seconds: float
    problem: str = ""


def write_trial(path: Path, trial: Trial) -> None:
    """Append a line. inf is no JSON: it becomes null.

    Raises:
        UserError: the file cannot be written.
    """
    seconds = None if trial.seconds == inf else trial.seconds
    told = {"config": trial.config._asdict(), "seconds": seconds, "problem": trial.problem}
    line = json.dumps({"made": trial.made} | trial.shape._asdict() | told).encode()
    try:
        with path.open("a+b") as file:
            if file.tell() and not _ends_a_line(file):  # the line before was cut short
                line = b"\n" + line
            file.write(line + b"\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; choose a folder that can be written with --into") from error


def _ends_a_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def read_trials(
    path: Path, made: dict[str, str], shape: Callable[..., Any], config: Callable[..., Any]
) -> Iterator[Trial]:
    """Tries made with the same GPU and versions; a last line that was cut short, and foreign ones, are passed over.

    Args:
        path: the journal.
        made: with what.
        shape: makes one of its fields.
        config: likewise.

    Raises:
        UserError: the file is there and cannot be read.
    """
    if not path.exists():
        return
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; move it away") from error
    for text in lines:
        try:
            line: dict[str, Any] = json.loads(text)
            seconds, problem = line.pop("seconds"), line.pop("problem")
            tried_with, tried = line.pop("made"), config(**line.pop("config"))
            trial = Trial(tried_with, shape(**line), tried, inf if seconds is None else float(seconds), problem)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if trial.made == made and trial.seconds > 0:  # NaN is not
            yield trial
