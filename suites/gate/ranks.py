"""Exact all-reduces by ranks that share one GPU and arrive at random moments.

The backends are ours, torch's symmetric memory and NCCL. The check is functional: it counts right rounds and gives no
time, because ranks on one GPU have no link between them. Only a wrong sum is wrong. A rank that hangs, dies or cannot
start leaves the check unfinished.
"""

import json
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from suites.gate.step import GateContext, Step, Verdict, parse_options, write_verdict

LABEL = "ranks share one GPU: functional check"
MARGIN_SECONDS = 6.0
"""Seconds of the step to start Python and to end ranks that hang."""
GRACE_SECONDS = 3.0
"""Seconds from a rank's death until the remaining ranks are ended.

A rank that is about to fail too can still say why.
"""

RANK_COUNT = 8
"""Ranks, started once for all trials."""
Trials = Sequence[tuple[int, str, int]]
"""(number of ranks, backend, rounds) of each trial, the most important first.

A trial uses the first ranks of all.
"""
TRIALS: Mapping[str, Trials] = {
    "cuda": (
        *((ranks, "triton-one-shot", 500) for ranks in (2, 4, 8)),
        *((ranks, backend, 25) for ranks in (2, 8) for backend in ("symm-one-shot", "symm-two-shot")),
        (2, "nccl", 25),
    ),
    "cpu": tuple((ranks, "gloo", 25) for ranks in (2, 4, 8)),
}
"""Trials by kind of device."""


class TrialOutcome(NamedTuple):
    """Results of all trials.

    Attributes:
        rows: results of each rank that reported, one for each of its trials.
        end_reason: how a rank ended that should not have; None where all ended well.
    """

    rows: tuple[Sequence[Mapping[str, Any]], ...]
    end_reason: str | None


def run_processes(ranks: Sequence[BaseProcess], limit_seconds: float, logs: Sequence[Path]) -> str | None:
    """Start the ranks and wait; return None where all ended well, else which did not.

    No rank stays behind.
    """
    deadline = time.monotonic() + limit_seconds
    try:
        for one in ranks:
            one.start()
        return _wait_for_ranks(ranks, deadline, limit_seconds, logs)
    except KeyboardInterrupt:  # the gate ends this step: results so far are still reported
        return "interrupted"
    finally:
        for one in ranks:
            if one.pid is not None:
                one.kill()
                one.join()


def _wait_for_ranks(
    ranks: Sequence[BaseProcess], deadline: float, limit_seconds: float, logs: Sequence[Path]
) -> str | None:
    dead: str | None = None
    while any(one.exitcode is None for one in ranks):
        if dead is None and (dead := _first_death(ranks, logs)):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            waiting = [str(rank) for rank, one in enumerate(ranks) if one.exitcode is None]
            return dead or f"rank {', '.join(waiting)} did not end within {limit_seconds:.0f} s"
        time.sleep(0.05)
    return dead or _first_death(ranks, logs)


def _first_death(ranks: Sequence[BaseProcess], logs: Sequence[Path]) -> str | None:
    dead = [rank for rank, one in enumerate(ranks) if one.exitcode]
    if not dead:
        return None
    # the first rank to die has the oldest log, as other ranks failed later; a killed rank wrote nothing
    first = min(dead, key=lambda rank: logs[rank].stat().st_mtime_ns if logs[rank].exists() else 0)
    words = [line.strip() for line in _read_lines(logs[first]) if line.strip()]
    return f"rank {first} ended with status {ranks[first].exitcode}{f': {words[-1][:160]}' if words else ''}"


def _read_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines() if log.exists() else []


def run_all_ranks(
    games: Trials, ranks: int, kind: str, seconds: float, folder: Path, rank: Callable[..., object] | None = None
) -> TrialOutcome:
    """Run all trials; ranks end after `seconds`, or by force a little later.

    Each rank is a fork of one process that has imported torch: eight imports would take the step's time.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # the gate itself needs no package

    from suites.gate import overlapping

    context = get_context("forkserver")
    context.set_forkserver_preload([overlapping.__name__])
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    files, logs = ([folder / f"{number}.{ending}" for number in range(ranks)] for ending in ("json", "log"))
    asked, until = tuple(overlapping.Trial(*game) for game in games), time.monotonic() + seconds
    seats = [
        overlapping.RankTrials(number, ranks, kind, store.port, until, asked, file, log)
        for number, (file, log) in enumerate(zip(files, logs, strict=True))
    ]
    target = rank or overlapping.run_rank
    ended = run_processes(
        [context.Process(target=target, args=(seat,)) for seat in seats], seconds + GRACE_SECONDS, logs
    )
    diaries = [json.loads(file.read_text()) for file in files if file.exists()]
    if ended:
        ended += _last_positions(diaries, ranks)
        for number, log in enumerate(logs):
            sys.stdout.write("".join(f"rank {number}: {line}\n" for line in _read_lines(log)[-5:]))
    return TrialOutcome(tuple(one["rows"] for one in diaries), ended)


def _last_positions(diaries: Sequence[Mapping[str, Any]], ranks: int) -> str:
    """Text on where the ranks were when they were ended."""
    at = sorted({one["at"] for one in diaries if one["at"]})
    silent = [f"{ranks - len(diaries)} of {ranks} had not begun"] if len(diaries) < ranks else []
    places = [*at, *silent]
    return f" (at: {', '.join(places)})" if places else ""


def judge_trials(outcome: TrialOutcome) -> Verdict:
    """Fail for a wrong sum or a fault of the GPU; only report missing rounds."""
    rows = [dict(row) for rank in outcome.rows for row in rank]
    lines, reasons, bad = list[str](), list[str](), list[str]()
    wrong = 0
    for ranks, backend in dict.fromkeys((row["ranks"], row["backend"]) for row in rows):
        found = [row for row in rows if (row["ranks"], row["backend"]) == (ranks, backend)]
        counts = [row for row in found if "right" in row]
        reasons += sorted({f"{backend} with {ranks}: {row['not_run']}" for row in found if "not_run" in row})
        bad += sorted({f"{backend} with {ranks}: the GPU faulted: {row['fault']}" for row in found if "fault" in row})
        if counts:
            right = min(row["right"] for row in counts)
            lines.append(f"{backend} with {ranks}: {right} of {counts[0]['wanted']} rounds right")
        if results := sum(row["wrong"] for row in counts):
            first = next(row["first"] for row in counts if row["wrong"])
            bad.insert(0, f"{backend} with {ranks} ranks: {results} results WRONG, first {first}")
            wrong += results
    ended = [outcome.end_reason] if outcome.end_reason else []
    figures = {"games": rows, "wrong": wrong}
    not_run = [f"not run: {', '.join(reasons)}"] if reasons else []
    detail = "; ".join([*bad, *ended, *lines, *not_run])
    if bad:
        return Verdict("failed", f"{LABEL}: {detail}", figures)
    if ended:
        return Verdict("unfinished", f"{LABEL}: no sum was wrong; {detail}", figures)
    if any(row.get("right") for row in rows):
        return Verdict("passed", f"{LABEL}: {detail}", figures)
    return Verdict("unfinished" if lines else "not_run", f"{LABEL}: no round was played; {detail}", figures)


def main(
    argv: Sequence[str] | None = None,
    games: Trials | None = None,
    ranks: int = RANK_COUNT,
    rank: Callable[..., object] | None = None,
) -> int:
    """Start the ranks and write the verdict; return the exit status."""
    began, own = time.monotonic(), ArgumentParser(add_help=False)
    own.add_argument("--kind", choices=list(TRIALS), default="cuda", help="device of the ranks")
    asked = parse_options(__doc__, argv, seconds=True, parents=[own])
    write_verdict(Verdict("unfinished", f"{LABEL}: the ranks did not come to their end", {"wrong": 0}), asked.verdict)
    with tempfile.TemporaryDirectory(prefix="ranks-") as scratch:
        left = asked.seconds - (time.monotonic() - began) - MARGIN_SECONDS - GRACE_SECONDS
        outcome = run_all_ranks(games or TRIALS[asked.kind], ranks, asked.kind, max(left, 1.0), Path(scratch), rank)
    return write_verdict(judge_trials(outcome), asked.verdict)


def ranks_command(context: GateContext, seconds: float) -> list[str]:
    """Command of the step; its program divides the time itself."""
    return context.program("ranks", "--seconds", f"{seconds:.0f}")


STEP = Step(
    name="ranks",
    purpose="2, 4 and 8 ranks that share the GPU: exact all-reduces under random delays, one-shot Triton 500 rounds",
    seconds=75,
    least_seconds=40,
    most_seconds=75,
    command=ranks_command,
    environment={"TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES": "1", "NCCL_MULTI_RANK_GPU_ENABLE": "1"},
)

if __name__ == "__main__":
    sys.exit(main())
