"""Which algorithm NCCL takes for each message: asked once before anything is timed, in ranks of their own.

NCCL tells in its log, a line a call, which would cost the timed calls their host time; and it reads the switch for it
once. So rank 0 of a first set of ranks logs, each case runs there once, and these ranks end.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from comm.backends import torch_distributed
from suites.world.crew import Crew
from suites.world.link import CaseRefusedError, RankLostError
from suites.world.rank_case import RankEntry

TELLING = ("nccl", "rccl", "cupy-nccl")


def survey(crew: Crew, entries: Sequence[RankEntry]) -> None:
    """Note the algorithm on every case that NCCL carries and tells of; the others stay unknown.

    A case that fails here is left to fail, with its reason, where it is measured.
    """
    asked = {}
    for entry in entries:
        if entry.open and entry.case.implementation in TELLING and entry.algorithm is None:
            asked[entry.case.implementation, entry.case.op, entry.case.message_bytes, entry.case.dtype] = entry
    if not asked:
        return
    with tempfile.TemporaryDirectory(prefix="shardbench-nccl-") as folder:
        for implementation in dict.fromkeys(key[0] for key in asked):
            log = Path(folder) / f"{implementation}.log"
            _run(crew, log, [entry for key, entry in asked.items() if key[0] == implementation])
            told = torch_distributed.choices(log.read_text(errors="replace")) if log.exists() else {}
            for entry in entries:
                if entry.case.implementation == implementation:
                    op = entry.case.op.removesuffix("_rmsnorm")
                    entry.algorithm = told.get((op, entry.case.message_bytes or 0))


def _run(crew: Crew, log: Path, entries: Sequence[RankEntry]) -> None:
    """Each case once, with rank 0's NCCL logging."""
    telling = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "TUNING", "NCCL_DEBUG_FILE": str(log)}
    try:
        crew.start(telling)
        for number, entry in enumerate(entries):
            label = {"name": entry.case.name, "question": "survey", "number": number}
            told = {"task": {**entry.told(), "launch": "eager"}, "copies": 1, "label": label}
            try:
                crew.ask("draw", told, f"setting up {entry.title}")
            except CaseRefusedError:
                continue
            crew.ask("check", {"turn": 0}, f"asking NCCL about {entry.title}")
    except RankLostError:
        return
    finally:
        crew.end()
