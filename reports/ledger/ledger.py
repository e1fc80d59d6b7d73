"""Ledger of one layer: where its time goes, and its time against its parts' sum.

Figures are means, as sums are of means. Passes lie seconds apart, and each holds the layer and its parts. So every
figure is computed within a pass, and the spread between passes gives the intervals. In each pass the items add up to
100 %:

    linears, attention, norms   parts alone, times their calls; on a CPU less a launch for each call
    launch gaps                 on a GPU eager − graph; on a CPU calls times the launch latency of the same run
    fusion gain                 t(gate_up_swiglu) − t(gate_up) − t(swiglu); of torch.compile its layer − torch's
    cache effect                the rest: above zero where a part alone runs hotter than in a layer, which sends its
                                weights through the caches between two calls; below zero where the layer finds in a
                                cache what a part alone does not, and where calls overlap
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal

from reports import machine
from reports.results import ResultFile
from reports.roofline import CaseMetrics
from specs import statistics
from specs.layer import FUSED_GATE_UP, FUSING_IMPLEMENTATIONS, WHOLE_LAYER
from specs.measurement import Case, Measurement

# A whole layer in a result file, with its parts and other inputs of its ledger.

QUESTION = "layer"
ITEM_PARTS: Mapping[str, tuple[str, ...]] = {
    "linears": ("qkv", "o", "gate_up", "down"),
    "attention": ("attention",),
    "norms": ("norm", "rotary", "swiglu"),
}
"""Parts that each ledger item sums; norms are all elementwise parts."""
COMPILED = "torch-compile"
PARTS_FROM = {COMPILED: "torch"}
"""Source of the parts of an implementation that cannot be timed by parts."""


LayerKey = tuple[str | None, int | None, int | None, int | None, int | None, int | None, str, bool]
"""Model, tp, pp, tokens, batch, context, dtype, and whether weights were cold."""


@dataclass(frozen=True)
class MeasuredLayer:
    """One layer by one implementation.

    Attributes:
        file: the result file.
        whole: the whole layer, by launch.
        parts: each part alone, by name, of the same implementation or its family: in a graph on a GPU, eager on a CPU.
        plain: torch's layer in the launch of `parts`, with which `torch-compile` is compared.
        latency: eager launch time on a CPU, by the same run.
    """

    file: ResultFile
    whole: Mapping[str, Measurement]
    parts: Mapping[str, Measurement]
    plain: Measurement | None
    latency: Measurement | None

    @property
    def total(self) -> Measurement:
        """Measurement that is 100 %: the eager launch, where there is one."""
        return self.whole.get("eager") or next(iter(self.whole.values()))

    @property
    def device(self) -> Measurement | None:
        """Layer in the launch that its parts were timed in; None if not measured."""
        return self.whole.get(_device_launch(self.file))

    @property
    def case(self) -> Case:
        """Case of the measurement that is 100 %."""
        return self.total.case

    @property
    def compiled(self) -> bool:
        """True where a compiler chooses the fusion, so parts cannot be timed alone."""
        return self.case.implementation == COMPILED

    @property
    def unfused(self) -> bool:
        """True where the layer has a fused part that was not measured alone."""
        return self.case.implementation in FUSING_IMPLEMENTATIONS and FUSED_GATE_UP not in self.parts

    def calls(self, name: str) -> int:
        """Return how often a layer calls a part."""
        return self.parts[name].case.per_layer or 1

    @cached_property
    def gaps(self) -> Sequence[str]:
        """Missing measurements, in a few words each; empty where the ledger closes."""
        family = PARTS_FROM.get(self.case.implementation, self.case.implementation)
        absent = [name for group in ITEM_PARTS.values() for name in group if name not in self.parts]
        launch = _device_launch(self.file)
        absent += [FUSED_GATE_UP] if self.unfused else []
        found = [f"{', '.join(absent)} by {family}, {launch}"] if absent else []
        found += [f"the layer in a {launch}"] if self.device is None else []
        found += [f"the layer by {family}, {launch}"] if self.compiled and self.plain is None else []
        return found

    @property
    def remarks(self) -> list[str]:
        """Missing measurements that leave the other items intact."""
        if self.file.machine.get("gpu"):
            return [] if "eager" in self.whole else ["the layer launched eagerly: no launch gaps"]
        return [] if self.latency else ["the launch latency of suites/bench_ceilings.py: launches stay in the parts"]

    @property
    def used(self) -> list[Measurement]:
        """All measurements behind the figures."""
        found = [*self.whole.values(), *self.parts.values(), self.plain, self.latency]
        return [one for one in found if one]


def collect_layers(file: ResultFile) -> list[MeasuredLayer]:
    """Collect the whole layers of a file with their parts, in file order.

    All launches of a layer form one entry.
    """
    wholes: dict[tuple[LayerKey, str], dict[str, Measurement]] = {}
    parts: dict[tuple[LayerKey, str], dict[str, Measurement]] = {}
    for one in _timed_measurements(file):
        case = one.case
        if case.op == WHOLE_LAYER:
            wholes.setdefault((_layer_key(case), case.implementation), {}).setdefault(case.launch, one)
        elif case.layer and case.launch == _device_launch(file):
            for place in _part_keys(case):
                parts.setdefault((place, case.implementation), {}).setdefault(case.layer, one)
    latency = None if file.machine.get("gpu") else machine.fastest_launch(file, "eager")
    found = []
    for (place, implementation), whole in wholes.items():
        family = place, PARTS_FROM.get(implementation, implementation)
        plain = wholes.get(family, {}).get(_device_launch(file)) if implementation in PARTS_FROM else None
        found.append(MeasuredLayer(file, whole, parts.get(family, {}), plain, latency))
    return found


def _timed_measurements(file: ResultFile) -> Iterator[Measurement]:
    if file.profiler:
        return iter(())  # its parts were seen in the layer, not timed alone
    return (one for one in file.measurements if one.case.question == QUESTION and one.provenance == "measured")


def _device_launch(file: ResultFile) -> str:
    """Return the launch that gives device time: a CPU has no graphs."""
    return "graph" if file.machine.get("gpu") else "eager"


def _part_keys(case: Case) -> list[LayerKey]:
    """Return the layers that a part belongs to.

    A part that streams nothing is hot alone, and also belongs to cold layers.
    """
    place, prompt = _layer_key(case), case.tokens != case.batch
    streams = case.layer not in ITEM_PARTS["norms"] and not (case.layer == "attention" and prompt)
    return [place] if streams or case.cache != "hot" else [place, (*place[:-1], True)]


def _layer_key(case: Case) -> LayerKey:
    shape = case.tokens, case.batch, case.context
    return case.model, case.tp, case.pp, *shape, case.dtype, case.cache != "hot"  # rotated-N: N differs by part


ITEMS = (*ITEM_PARTS, "launch gaps", "fusion gain", "cache effect", "unaccounted")
"""Items in the order of the ledger.

The last item replaces the cache effect where a part is missing.
"""
SUM_TOLERANCE = 0.05
"""Largest relative difference between the layer and the sum of its parts."""
SumVerdict = Literal["within 5 %", "over", "under", "straddles"]


@dataclass(frozen=True)
class PassFigure:
    """One figure by pass: seconds, a share or a ratio."""

    by_pass: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean over passes."""
        return fmean(self.by_pass)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval on the mean; None for a single pass."""
        return statistics.mean_interval(self.by_pass)

    @property
    def half_width(self) -> float | None:
        """Half of the interval, in the unit of the figure."""
        return (self.interval[1] - self.interval[0]) / 2 if self.interval else None

    @property
    def relative(self) -> float | None:
        """Half-width as a share of the mean."""
        return self.half_width / abs(self.mean) if self.half_width is not None and self.mean else None


@dataclass(frozen=True)
class LedgerItem:
    """A line of the ledger: seconds, and the share of the layer."""

    name: str
    seconds: PassFigure
    share: PassFigure


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Breakdown of a layer's time.

    Attributes:
        layer: the measurements.
        passes: number of passes that all measurements have.
        seconds: the layer's time, which is 100 %.
        items: parts of the layer's time; they add up to it.
        parts: seconds of one call of each part alone, launch included.
        device: seconds of the layer in the launch of its parts, on a GPU without launch gaps; None if not measured.
        sum_of_parts: seconds of the parts after fusion, times their calls; None where a part is missing, and for
            torch.compile, whose parts are unknown.
    """

    layer: MeasuredLayer
    passes: int
    seconds: PassFigure
    items: Sequence[LedgerItem]
    parts: Mapping[str, PassFigure]
    device: PassFigure | None
    sum_of_parts: PassFigure | None

    @cached_property
    def ratio(self) -> PassFigure | None:
        """Layer over the sum of its parts.

        Launch gaps are in neither on a GPU, and in both on a CPU.
        """
        if not (self.device and self.sum_of_parts):
            return None
        return PassFigure([one / of for one, of in zip(self.device.by_pass, self.sum_of_parts.by_pass, strict=True)])

    @property
    def floor_share(self) -> float | None:
        """Minimum time by the file's ceilings over the layer's time.

        None where a ceiling is missing.
        """
        floor = CaseMetrics(self.layer.total, machine.measured_ceilings(self.layer.file), None).floor_seconds
        return floor / self.seconds.mean if floor else None

    def share(self, name: str) -> PassFigure | None:
        """Return the share of one item; None where the ledger lacks it."""
        return next((item.share for item in self.items if item.name == name), None)

    @property
    def verdict(self) -> SumVerdict | None:
        """Verdict on the layer against the sum of its parts; None without an interval."""
        ends = self.ratio.interval if self.ratio else None
        if ends is None:
            return None
        low, high = ends[0] - 1, ends[1] - 1
        if max(-low, high) <= SUM_TOLERANCE:
            return "within 5 %"
        return "over" if low > SUM_TOLERANCE else "under" if high < -SUM_TOLERANCE else "straddles"

    @property
    def missing(self) -> list[str]:
        """Missing measurements, in words."""
        return [*self.layer.gaps, *self.layer.remarks]


def build_ledger(layer: MeasuredLayer) -> Ledger:
    """Compute the ledger over the passes that all measurements have."""
    passes = range(min(len(one.seconds) for one in layer.used))
    turns = [_items(layer, turn) for turn in passes]
    seconds = [_mean(layer.total, turn) for turn in passes]
    items = [
        LedgerItem(
            name,
            PassFigure([turn[name] for turn in turns]),
            PassFigure([turn[name] / total for turn, total in zip(turns, seconds, strict=True)]),
        )
        for name in ITEMS
        if name in turns[0]
    ]
    return Ledger(
        layer=layer,
        passes=len(passes),
        seconds=PassFigure(seconds),
        items=items,
        parts={name: PassFigure([_mean(one, turn) for turn in passes]) for name, one in layer.parts.items()},
        device=PassFigure([_mean(layer.device, turn) for turn in passes]) if layer.device else None,
        sum_of_parts=None
        if layer.gaps or layer.compiled
        else PassFigure([_parts(layer, turn) + _fusion(layer, turn) for turn in passes]),
    )


def _items(layer: MeasuredLayer, turn: int) -> dict[str, float]:
    """Return the seconds of each item in one pass.

    An item with a missing part is left out, and the cache effect is then not given.
    """
    launch = _mean(layer.latency, turn) if layer.latency else 0.0
    items, calls = {}, 0
    for group, names in ITEM_PARTS.items():
        if all(name in layer.parts for name in names):
            items[group] = sum(layer.calls(name) * (_mean(layer.parts[name], turn) - launch) for name in names)
            calls += sum(map(layer.calls, names))
    if layer.latency:
        items["launch gaps"] = calls * launch
    elif "eager" in layer.whole and "graph" in layer.whole:
        items["launch gaps"] = _mean(layer.whole["eager"], turn) - _mean(layer.whole["graph"], turn)
    if not layer.unfused and (not layer.compiled or (layer.plain and layer.device)):
        items["fusion gain"] = _fusion(layer, turn)
    items["unaccounted" if layer.gaps else "cache effect"] = _mean(layer.total, turn) - sum(items.values())
    return items


def _parts(layer: MeasuredLayer, turn: int) -> float:
    """Return the seconds of all plain parts, launches included."""
    return sum(layer.calls(name) * _mean(layer.parts[name], turn) for names in ITEM_PARTS.values() for name in names)


def _fusion(layer: MeasuredLayer, turn: int) -> float:
    """Return the seconds that fusion saves, as a negative number.

    0 where nothing is fused.
    """
    if layer.plain and layer.device:
        return _mean(layer.device, turn) - _mean(layer.plain, turn)
    fused = [layer.parts.get(name) for name in (FUSED_GATE_UP, "gate_up", "swiglu")]
    if not all(fused):
        return 0.0
    both, *alone = (_mean(one, turn) for one in fused if one)
    return both - sum(alone)


def _mean(measurement: Measurement, turn: int) -> float:
    return fmean(measurement.seconds[turn])
