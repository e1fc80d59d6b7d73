"""What the programs of the steps share: their two options, and leaving a verdict."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from suites.gate.step import Verdict


def options(
    text: str | None,
    argv: Sequence[str] | None = None,
    *,
    seconds: bool = False,
    parents: Sequence[ArgumentParser] = (),
) -> Namespace:
    """`--out`, `--verdict`, where a program divides its time `--seconds`, and the options of `parents`."""
    parser = ArgumentParser(description=text, parents=parents)
    parser.add_argument("--out", type=Path, required=True, help="folder of what is kept")
    parser.add_argument("--verdict", type=Path, help="file for the verdict; it is printed in any case")
    if seconds:
        parser.add_argument("--seconds", type=float, required=True, help="what the program may take")
    return parser.parse_args(argv)


def leave(verdict: Verdict, path: Path | None) -> int:
    """Write a verdict; the exit status that goes with it. May be called again when more is known."""
    print(f"{verdict.outcome}: {verdict.detail}", flush=True)  # noqa: T201 - a program's output
    if path is not None:
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(asdict(verdict), allow_nan=False))
        fresh.replace(path)
    return 1 if verdict.outcome == "failed" else 0
