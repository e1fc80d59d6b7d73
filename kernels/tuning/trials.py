"""What a search has tried, a line a try, so that the next one goes on from there."""

import json
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from kernels.tuning.config import Config


class Trial(NamedTuple):
    """One try.

    Attributes:
        made: the GPU and the versions that it was made with.
        dtype, tokens, n, k: the shape.
        config: what was tried.
        seconds: cold mean of a call; inf where it was wrong or did not run.
        problem: why, then.
    """

    made: dict[str, str]
    dtype: str
    tokens: int
    n: int
    k: int
    config: Config
    seconds: float
    problem: str = ""


def write_trial(path: Path, trial: Trial) -> None:
    """Append a line. inf is no JSON: it becomes null."""
    seconds = None if trial.seconds == inf else trial.seconds
    line = trial._asdict() | {"config": trial.config._asdict(), "seconds": seconds}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def read_trials(path: Path, made: dict[str, str]) -> Iterator[Trial]:
    """Tries made with the same GPU and versions; a last line that was cut short, and foreign ones, are passed over."""
    if not path.exists():
        return
    for text in path.read_text().splitlines():
        try:
            line: dict[str, Any] = json.loads(text)
            seconds = inf if line["seconds"] is None else float(line["seconds"])
            trial = Trial(**line | {"config": Config(**line["config"]), "seconds": seconds})
        except (ValueError, KeyError, TypeError):
            continue
        if trial.made == made:
            yield trial
