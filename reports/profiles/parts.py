"""Device time of a layer's parts.

One call shows them by name. Every other call launches the same kernels in the same order, so the n-th kernel of each
belongs to the part that the n-th of the shown call does, graph or not.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from reports.profiles.activity import Activity, busy
from reports.profiles.visit import Visit

Kept = Sequence[tuple[Visit, list[Activity], int]]
"""Visits, what their calls launched, and how many calls that is."""
ALIKE = (
    "kernels of one name from different parts ran at once, on different streams: which is whose cannot be told, and "
    "their parts may be swapped"
)
SHOWN_ALONE = "kernels of the timed calls do not follow in the order of the shown call: parts are of that call alone"


@dataclass(frozen=True)
class Part:
    """A part of a layer.

    Attributes:
        name: as in `specs.layer.LAYER_PARTS`.
        seconds: of each visit, in seconds a layer: of all its calls there, together.
        per_layer: how often a layer calls it.
        kernels: a layer.
        kernel: the one that takes longest.
        share: of the device time of all parts.
        read_bytes: from DRAM a layer, where they were counted.
    """

    name: str
    seconds: Sequence[float]
    per_layer: int
    kernels: int
    kernel: str
    share: float
    read_bytes: float | None = None

    @property
    def busy(self) -> float:
        """Seconds a layer."""
        return median(self.seconds)


def parts(visits: Sequence[Visit], kept: Kept, notes: list[str]) -> list[Part]:
    """Those of a case that shows any, in the order of a layer; notes where they rest on the shown call alone."""
    shown = next((one.parts for one in visits if one.parts), None)
    if not shown:
        return []
    places = [name for name, activities in shown for _ in activities]
    order = [one.name for _, activities in shown for one in activities]
    times: dict[str, list[float]] = {name: [] for name, _ in shown}
    for _, ran, calls in kept:
        if _follow(order, ran):
            placed = [*zip(_in_order(ran), places * (len(ran) // len(places)), strict=True)]
            notes += [ALIKE] if _mixed(placed) else []
            for name in times:
                times[name].append(busy(one for one, place in placed if place == name) * 1e-9 / calls)
    if not any(times.values()):
        if not any(one.kind == "graph" for _, ran, _ in kept for one in ran):
            notes.append(SHOWN_ALONE)
        for name in times:
            times[name].append(busy(one for named, activities in shown if named == name for one in activities) * 1e-9)
    per_layer = Counter(name for name, _ in shown)
    total = sum(median(seconds) for seconds in times.values())
    return [_part(name, shown, seconds, per_layer[name], total) for name, seconds in times.items()]


def _part(
    name: str, shown: Sequence[tuple[str, list[Activity]]], seconds: Sequence[float], per_layer: int, total: float
) -> Part:
    own = [one for named, activities in shown if named == name for one in activities]
    read = [one.read_bytes for one in own if one.read_bytes is not None]
    return Part(
        name=name,
        seconds=seconds,
        per_layer=per_layer,
        kernels=sum(one.kind == "kernel" for one in own),
        kernel=max(own, key=lambda one: one.end - one.start).name,
        share=median(seconds) / total if total else 0.0,
        read_bytes=sum(read) if read else None,
    )


def _in_order(ran: Sequence[Activity]) -> list[Activity]:
    """As they were launched; of a graph, whose kernels one launch starts, as they ran."""
    return sorted(ran, key=lambda one: (one.launched, one.start))


def _mixed(placed: Sequence[tuple[Activity, str]]) -> bool:
    """Whether kernels that only their order tells apart overlap: in a graph that is the order in which they began."""
    before: dict[str, tuple[Activity, str]] = {}
    for one, place in placed:
        last, place_of_last = before.get(one.name, (one, place))
        if one.in_graph and place != place_of_last and one.stream != last.stream and one.start < last.end:
            return True
        before[one.name] = one, place
    return False


def _follow(order: Sequence[str], ran: Sequence[Activity]) -> bool:
    """Whether calls launch what the shown call does, in its order, again and again."""
    if not order or len(ran) % len(order):
        return False
    return [one.name for one in _in_order(ran)] == list(order) * (len(ran) // len(order))
