"""Ranks that share one GPU: is every all-reduce of ours and of torch's symmetric memory right, whoever is late?

A functional check: it prints how many rounds were right and no time, for ranks on one GPU have no link between them.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from suites.gate.program import leave, options
from suites.gate.step import Place, Step, Verdict

LABEL = "ranks share one GPU: functional check"
MARGIN_SECONDS = 6.0
"""Of the step's time: for starting Python and for ending ranks that hang."""
SETTLE_SECONDS = 3.0
"""From a rank's death until the others are ended: one that is about to fail too says why."""


class Game(NamedTuple):
    """So many ranks, and what they play: backend and rounds, the most important first."""

    ranks: int
    rounds: tuple[str, ...]


GAMES = (
    Game(2, ("triton-one-shot:500", "symm-one-shot:25", "symm-two-shot:25", "nccl:25")),
    Game(4, ("triton-one-shot:500",)),
    Game(8, ("triton-one-shot:500", "symm-one-shot:25", "symm-two-shot:25")),
)


class Told(NamedTuple):
    """What came of a game.

    Attributes:
        found: of each rank that said something, backend to counts or to the reason why it was not run.
        failed: how a rank ended that should not have; None where all ended well.
    """

    found: tuple[Mapping[str, Any], ...]
    failed: str | None


def supervise(commands: Sequence[Sequence[str]], limit_seconds: float, log: Path) -> str | None:
    """Run the ranks together; None when all ended well, else which did not. None of them stays behind."""
    deadline = time.monotonic() + limit_seconds
    with log.open("wb") as output:
        ranks = [
            subprocess.Popen(list(one), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
            for one in commands
        ]
        try:
            return _watch(ranks, deadline, limit_seconds)
        finally:
            for one in ranks:
                one.kill()
            for one in ranks:
                one.wait()


def _watch(ranks: Sequence["subprocess.Popen[bytes]"], deadline: float, limit_seconds: float) -> str | None:
    dead: str | None = None
    while any(one.poll() is None for one in ranks):
        if dead is None and (dead := _dead(ranks)):
            deadline = min(deadline, time.monotonic() + SETTLE_SECONDS)
        if time.monotonic() > deadline:
            waiting = [str(rank) for rank, one in enumerate(ranks) if one.poll() is None]
            return dead or f"rank {', '.join(waiting)} did not end within {limit_seconds:.0f} s"
        time.sleep(0.05)
    return _dead(ranks)


def _dead(ranks: Sequence["subprocess.Popen[bytes]"]) -> str | None:
    return next(
        (f"rank {rank} ended with status {one.returncode}" for rank, one in enumerate(ranks) if one.poll()), None
    )


def play(game: Game, kind: str, port: int, seconds: float, folder: Path) -> Told:
    """One game; its ranks end by themselves after `seconds`, and by force a little later."""
    folder.mkdir()
    files = [folder / f"{rank}.json" for rank in range(game.ranks)]
    told = ["--ranks", game.ranks, "--port", port, "--kind", kind, "--until", time.monotonic() + seconds]
    program = [sys.executable, "-m", "suites.gate.overlapping", *map(str, told)]
    commands = [[*program, "--rank", str(rank), "--into", str(file), *game.rounds] for rank, file in enumerate(files)]
    failed = supervise(commands, seconds + SETTLE_SECONDS, folder / "log")
    if failed:
        words = [line.strip() for line in (folder / "log").read_text(errors="replace").splitlines() if line.strip()]
        sys.stdout.write("\n".join(words[-40:]) + "\n")
        failed += f": {words[-1][:160]}" if words else ""
    return Told(tuple(json.loads(file.read_text()) for file in files if file.exists()), failed)


def judge(games: Sequence[Game], told: Sequence[Told]) -> Verdict:
    """Failed if a result was wrong, a rank died or hung, or nothing was run; fewer rounds than wanted are only said."""
    lines, reasons, wrong, rows = list[str](), list[str](), list[str](), list[dict[str, Any]]()
    for game, one in zip(games, told, strict=True):
        if one.failed:
            wrong.append(f"{game.ranks} ranks: {one.failed}")
        for backend in (name.split(":")[0] for name in game.rounds):
            found = [rank[backend] for rank in one.found if backend in rank]
            counts = [rank for rank in found if "right" in rank]
            rows += [{"ranks": game.ranks, "backend": backend, **rank} for rank in found]
            reasons += sorted(
                {f"{backend} with {game.ranks}: {rank['not_run']}" for rank in found if "not_run" in rank}
            )
            if counts:
                right = min(rank["right"] for rank in counts)
                lines.append(f"{backend} with {game.ranks}: {right} of {counts[0]['wanted']} rounds right")
            if bad := sum(rank["wrong"] for rank in counts):
                first = next(rank["first"] for rank in counts if rank["wrong"])
                wrong.append(f"{backend} with {game.ranks} ranks: {bad} results WRONG, first {first}")
    ran = any(row.get("right") for row in rows)
    detail = "; ".join([*wrong, *([] if ran else ["no round was right or wrong"]), *lines, *_not_run(reasons)])
    return Verdict("failed" if wrong or not ran else "passed", f"{LABEL}: {detail}", {"games": rows})


def _not_run(reasons: Sequence[str]) -> list[str]:
    return [f"not run: {', '.join(reasons)}"] if reasons else []


def main(argv: Sequence[str] | None = None, kind: str = "cuda", games: Sequence[Game] = GAMES) -> int:
    """Games one after another, each with an equal part of the time that is left."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # the gate itself needs no package

    asked, told = options(__doc__, argv, seconds=True), list[Told]()
    deadline = time.monotonic() + asked.seconds - MARGIN_SECONDS
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory(prefix="ranks-") as scratch:
        for index, game in enumerate(games):
            share = (deadline - time.monotonic()) / (len(games) - index) - SETTLE_SECONDS
            told.append(play(game, kind, store.port, max(share, 1.0), Path(scratch, f"{game.ranks}")))
            status = leave(judge(games[: index + 1], told), asked.verdict)
    return status


def command(place: Place, seconds: float) -> list[str]:
    """The program divides the time itself."""
    return place.module("ranks", "--seconds", f"{seconds:.0f}")


STEP = Step(
    name="ranks",
    purpose="2, 4 and 8 ranks that share the GPU: exact all-reduces under random delays, one-shot Triton 500 rounds",
    seconds=75,
    least_seconds=40,
    most_seconds=75,
    command=command,
    environment={"TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES": "1", "NCCL_MULTI_RANK_GPU_ENABLE": "1"},
)

if __name__ == "__main__":
    sys.exit(main())
