"""What the decode kernels are meant to reach: 16 shapes of Llama-3-70B on H200, at five counts of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import geometric_mean
from typing import Any, Literal

from reports.decode.points import LIBRARIES, Point, Selection, Speedup
from reports.evidence import gpu_name
from specs.layer import LAYERS, MODEL, TOKENS, TP

GPU = "h200_sxm"
LEAST = 0.97
MEAN = 1.08
NARROW = 1.15
LAUNCH_SECONDS = 2.2e-6
READ_SHARE = 0.96
ON_THE_LINE = 90
"""Percent of the points that have to take no longer than the line."""

Key = tuple[str | None, int | None, int | None]
Ratios = Sequence[tuple[Point, Speedup]]
ALL: frozenset[Key] = frozenset(product(LAYERS, TP, TOKENS))
SMALL: frozenset[Key] = frozenset(product(("qkv", "o"), (4, 8), TOKENS))
"""Where the library leaves the most."""


@dataclass(frozen=True)
class Target:
    """One target and how it stands.

    Attributes:
        target: what is asked for.
        met: None where the points that are missing could still decide it.
        figure: what was reached, in its `unit`: a ratio, or a share of the points.
        points: how many of them there are; `of`: how many it was set for.
        remark: the point that decides, or what is missing.
    """

    target: str
    met: bool | None
    figure: float | None
    points: int
    of: int
    remark: str = ""
    unit: Literal["ratio", "share"] = "ratio"

    @property
    def verdict(self) -> str:
        """In words."""
        return "not measured" if self.met is None else "met" if self.met else "not met"

    def record(self, *, dependent_launch: bool) -> dict[str, Any]:
        """For a machine."""
        return {
            "target": self.target,
            "dependent_launch": dependent_launch,
            "met": self.met,
            "figure": self.figure,
            "unit": self.unit,
            "points": self.points,
            "of_points": self.of,
            "remark": self.remark,
        }


def judge(points: Sequence[Point], ours: Sequence[str]) -> list[Target]:
    """Every target, held against the best of `ours`."""
    ratios = [(point, speedup) for point in points if key(point) in ALL and (speedup := point.speedup(ours))]
    small = [(point, speedup) for point, speedup in ratios if key(point) in SMALL]
    narrow = "qkv, o at tp 4, 8"
    return [
        every(f"every point ≥ {LEAST}x", LEAST, ratios, len(ALL)),
        mean(f"geometric mean ≥ {MEAN}x", MEAN, ratios, len(ALL)),
        every(f"{narrow}: every point ≥ {NARROW}x", NARROW, small, len(SMALL)),
        mean(f"{narrow}: geometric mean ≥ {NARROW}x", NARROW, small, len(SMALL)),
        _on_the_line(points, ours),
    ]


def set_for_another(selection: Selection) -> str:
    """A remark where machine or model are not those that the targets were set for; else empty."""
    gpu = gpu_name(selection.file)
    return "" if (gpu, selection.model) == (GPU, MODEL) else f"set for {GPU} and {MODEL}; this is {gpu}"


def key(point: Point) -> Key:
    """What a target names a point by: layer, tp, tokens."""
    return point.case.layer, point.case.tp, point.case.tokens


def every(target: str, bound: float, ratios: Ratios, of: int) -> Target:
    """A single point below decides against it; for it, all have to be there."""
    worst, speedup = min(ratios, key=lambda one: one[1].ratio, default=(None, None))
    if worst is None or speedup is None:
        return Target(target, None, None, 0, of)
    lack = _lack(ratios, of)
    met = False if speedup.ratio < bound else None if lack else True
    return Target(target, met, speedup.ratio, len(ratios), of, _remarks(f"least at {worst.name}", lack))


def mean(target: str, bound: float, ratios: Ratios, of: int) -> Target:
    """All have to be there; with one library missing the ratios can only be too large."""
    if not ratios:
        return Target(target, None, None, 0, of)
    figure, lack = geometric_mean(speedup.ratio for _, speedup in ratios), _lack(ratios, of)
    met = None if len(ratios) < of else False if figure < bound else None if lack else True
    return Target(target, met, figure, len(ratios), of, lack)


def _on_the_line(points: Sequence[Point], ours: Sequence[str]) -> Target:
    """Times against a line: a launch, then the bytes at nearly the read ceiling of the run.

    With so many points over it that those missing cannot make up for them, it is decided.
    """
    target = f"t ≤ {LAUNCH_SECONDS * 1e6:g} us + bytes / ({READ_SHARE} read) at {ON_THE_LINE}%"
    of, read = len(ALL), next((point.read_bytes_per_second for point in points), None)
    own = [best.measurement for point in points if key(point) in ALL and (best := point.best(ours))]
    if not own:
        return Target(target, None, None, 0, of)
    if not read:
        return Target(target, None, None, 0, of, "no read ceiling in this file: run suites/bench_ceilings.py too")
    limits = [LAUNCH_SECONDS + one.case.hbm_bytes / (READ_SHARE * read) for one in own]
    within = sum(one.median <= limit for one, limit in zip(own, limits, strict=True))
    met = True if len(own) == of else None
    if 100 * (len(own) - within) > (100 - ON_THE_LINE) * of:
        met = False
    remark = _remarks(f"{within} of {len(own)} points", _absent(of - len(own)))
    return Target(target, met, within / len(own), len(own), of, remark, "share")


def _lack(ratios: Ratios, of: int) -> str:
    """What keeps a target from being met, however good the figures are."""
    lacking = {name: sum(name not in point.by for point, _ in ratios) for name in LIBRARIES}
    alone = [f"no {name} at {count}" for name, count in lacking.items() if count]
    return _remarks(_absent(of - len(ratios)), *alone)


def _absent(count: int) -> str:
    return f"{count} missing" if count else ""


def _remarks(*remarks: str) -> str:
    return "; ".join(filter(None, remarks))
