"""What a composed figure rests on: its weakest part, the cases, and what is assumed because nobody measured it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.evidence import weakest
from reports.plan import assumed
from reports.plan.cost import Cost

MODELLED = "modelled"
"""The best that a figure can be that no run gave."""


@dataclass(frozen=True)
class Basis:
    """By part of a step the weakest provenance and the names of the cases."""

    parts: Mapping[str, str]
    by_part: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, costs: Mapping[str, Cost]) -> "Basis":
        """That of single costs."""
        return cls(
            {name: one.provenance for name, one in costs.items()}, {name: one.cases for name, one in costs.items()}
        )

    @classmethod
    def joined(cls, found: Iterable["Basis"]) -> "Basis":
        """That of several."""
        parts: dict[str, str] = {}
        cases: dict[str, list[str]] = {}
        for one in found:
            for name, provenance in one.parts.items():
                parts[name] = weakest([parts.get(name, provenance), provenance])
            for name, names in one.by_part.items():
                cases.setdefault(name, []).extend(names)
        return cls(parts, {name: list(dict.fromkeys(names)) for name, names in cases.items()})

    @property
    def provenance(self) -> str:
        """Of the whole: modelled at best."""
        return weakest([MODELLED, *self.parts.values()])

    @property
    def cases(self) -> tuple[str, ...]:
        """All of them once."""
        return tuple(dict.fromkeys(name for names in self.by_part.values() for name in names))

    @property
    def assumed(self) -> str:
        """`assumed: elementwise kernels of 2 us, hops of 5–20 us`; empty where nothing is."""
        found = sorted(_words(name) for name, provenance in self.parts.items() if provenance == "assumed")
        return f"assumed: {', '.join(found)}" if found else ""


def _words(part: str) -> str:
    if part == "hop":
        low, high = (round(1e6 * one) for one in (assumed.HOP_SECONDS.low, assumed.HOP_SECONDS.high))
        return f"hops of {low}–{high} us"
    if part == "elementwise":
        return f"elementwise kernels of {1e6 * assumed.KERNEL_SECONDS.value:g} us"
    if part == "lm_head":
        return "the LM head by another width"
    return f"{part} beyond its table"
