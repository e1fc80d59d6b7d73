"""Measured against true: how far each case of a result file is off."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLOSE = 0.01
"""Relative distance within which a measurement recovers the truth."""
COLD = ("cold", "hot")
"""Caches whose truth is defined; `rotated-6` says of itself that it is neither."""


@dataclass(frozen=True)
class JudgedCase:
    """One case: relative distance of its median from the truth, and whether it says of itself that clocks moved."""

    case: str
    off: float
    true_seconds: float
    labelled: bool

    def __str__(self) -> str:
        return f"{self.case}: {100 * self.off:+.1f} % off the true {1e6 * self.true_seconds:.2f} us"


def judge(path: Path, notes: Iterable[Mapping[str, Any]]) -> list[JudgedCase]:
    """Every measured case of a file whose truth was noted."""
    true = {note["case"]: note for note in notes if note["kind"] == "truth"}
    found = []
    for benchmark in json.loads(path.read_text())["benchmarks"]:
        note, info = true.get(benchmark["fullname"]), benchmark["extra_info"]
        if note and note["cache"] in COLD:
            moved = (info.get("telemetry") or {}).get("moved_visits", 0)
            off = benchmark["stats"]["median"] / note["seconds"] - 1
            found.append(
                JudgedCase(
                    benchmark["fullname"].split("::")[-1], off, note["seconds"], bool(info["throttled"] or moved)
                )
            )
    return found
