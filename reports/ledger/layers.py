"""A whole layer in a result file, with its parts and whatever else its ledger needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from reports import ceilings
from reports.files import ResultFile
from specs.layer import FUSED, FUSING, WHOLE
from specs.measurement import Case, Measurement

QUESTION = "layer"
GROUPS: Mapping[str, tuple[str, ...]] = {
    "linears": ("qkv", "o", "gate_up", "down"),
    "attention": ("attention",),
    "norms": ("norm", "rotary", "swiglu"),
}
"""Parts by the item of the ledger that they are summed in; norms are whatever is elementwise."""
COMPILED = "torch-compile"
FAMILY = {COMPILED: "torch"}
"""Whose parts stand for those of an implementation that cannot be timed part by part."""


Place = tuple[str | None, int | None, int | None, int | None, int | None, int | None, str, bool]
"""Model, tp, pp, tokens, batch, context, dtype, and whether the weights were cold."""


@dataclass(frozen=True)
class Layer:
    """One layer by one implementation.

    Attributes:
        file: where it stands.
        whole: all of it, by launch.
        parts: each part alone, by name, of the same implementation or its family: in a graph on a GPU, eager on a CPU.
        plain: the layer by torch in the same launch as `parts`, which `torch-compile` is held against.
        latency: what an eager launch takes on a CPU, by the same run.
    """

    file: ResultFile
    whole: Mapping[str, Measurement]
    parts: Mapping[str, Measurement]
    plain: Measurement | None
    latency: Measurement | None

    @property
    def total(self) -> Measurement:
        """What makes 100 %: as launched eagerly, if it was."""
        return self.whole.get("eager") or next(iter(self.whole.values()))

    @property
    def device(self) -> Measurement | None:
        """The layer in the launch that its parts were timed in; None where it is not there."""
        return self.whole.get(_device_launch(self.file))

    @property
    def case(self) -> Case:
        """The case that makes 100 %."""
        return self.total.case

    @property
    def compiled(self) -> bool:
        """Whether a compiler fuses what it likes, so that its parts cannot be timed alone."""
        return self.case.implementation == COMPILED

    @property
    def unfused(self) -> bool:
        """Whether the fused part is missing that the layer has in place of plain ones."""
        return self.case.implementation in FUSING and FUSED not in self.parts

    def calls(self, name: str) -> int:
        """How often a layer calls a part."""
        return self.parts[name].case.per_layer or 1

    @cached_property
    def gaps(self) -> Sequence[str]:
        """What the ledger of it lacks, in a few words each; empty where it can be closed."""
        family = FAMILY.get(self.case.implementation, self.case.implementation)
        absent = [name for group in GROUPS.values() for name in group if name not in self.parts]
        launch = _device_launch(self.file)
        absent += [FUSED] if self.unfused else []
        found = [f"{', '.join(absent)} by {family}, {launch}"] if absent else []
        found += [f"the layer in a {launch}"] if self.device is None else []
        found += [f"the layer by {family}, {launch}"] if self.compiled and self.plain is None else []
        return found

    @property
    def remarks(self) -> list[str]:
        """What it lacks without harm to the other items."""
        if self.file.machine.get("gpu"):
            return [] if "eager" in self.whole else ["the layer launched eagerly: no launch gaps"]
        return [] if self.latency else ["the launch latency of suites/bench_ceilings.py: launches stay in the parts"]

    @property
    def used(self) -> list[Measurement]:
        """All measurements that its figures come from."""
        found = [*self.whole.values(), *self.parts.values(), self.plain, self.latency]
        return [one for one in found if one]


def collect(file: ResultFile) -> list[Layer]:
    """Every whole layer of a file with its parts, in the order of the file; a layer's launches make one of it."""
    wholes: dict[tuple[Place, str], dict[str, Measurement]] = {}
    parts: dict[tuple[Place, str], dict[str, Measurement]] = {}
    for one in _timed(file):
        case = one.case
        if case.op == WHOLE:
            wholes.setdefault((_place(case), case.implementation), {}).setdefault(case.launch, one)
        elif case.layer and case.launch == _device_launch(file):
            for place in _places(case):
                parts.setdefault((place, case.implementation), {}).setdefault(case.layer, one)
    latency = None if file.machine.get("gpu") else ceilings.launch(file, "eager")
    found = []
    for (place, implementation), whole in wholes.items():
        family = place, FAMILY.get(implementation, implementation)
        plain = wholes.get(family, {}).get(_device_launch(file)) if implementation in FAMILY else None
        found.append(Layer(file, whole, parts.get(family, {}), plain, latency))
    return found


def _timed(file: ResultFile) -> Iterator[Measurement]:
    if file.profiler:
        return iter(())  # its parts were seen in the layer, not timed alone
    return (one for one in file.measurements if one.case.question == QUESTION and one.provenance == "measured")


def _device_launch(file: ResultFile) -> str:
    """The launch that gives device time: a CPU has no graphs."""
    return "graph" if file.machine.get("gpu") else "eager"


def _places(case: Case) -> list[Place]:
    """Where a part belongs: one that streams nothing is hot alone, and a part of cold layers too."""
    place, prompt = _place(case), case.tokens != case.batch
    streams = case.layer not in GROUPS["norms"] and not (case.layer == "attention" and prompt)
    return [place] if streams or case.cache != "hot" else [place, (*place[:-1], True)]


def _place(case: Case) -> Place:
    shape = case.tokens, case.batch, case.context
    return case.model, case.tp, case.pp, *shape, case.dtype, case.cache != "hot"  # rotated-6: parts differ in how many
