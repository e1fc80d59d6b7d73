"""One file against the baseline: every case that both hold judged, explained and grouped."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, log, sqrt
from statistics import fmean, median

from reports.compare import correction, match, pooling
from reports.compare.drift import drift
from reports.compare.explain import Explained, Explanation, binding, explain
from reports.compare.groups import Group, by_group
from reports.compare.resources import Machines
from reports.compare.verdict import VERDICTS, Comparison, Interval, chance
from reports.files import ResultFile
from specs import statistics
from specs.measurement import Case, Measurement
from specs.statistics import LogRatio

FINE, COARSE = 0.015, 0.05
"""The change that counts, where none is asked for: 1.5 % where files can tell so little, else 5 %."""
TOLD = 0.02
"""They can where the 95 % interval of the case in the middle reaches no further than this either way."""


@dataclass(frozen=True, kw_only=True)
class Versus:
    """File b against file a.

    Attributes:
        a, b: the files.
        threshold: change that counts.
        cases: those of the same work in both, each with what explains its ratio.
        unlike: by case name why the work is not the same in both.
    """

    a: ResultFile
    b: ResultFile
    threshold: float
    cases: Sequence[Explained]
    unlike: Mapping[str, str]

    @cached_property
    def pairs(self) -> list[Comparison]:
        """The cases alone."""
        return [pair for pair, _ in self.cases]

    @cached_property
    def explanations(self) -> list[Explanation]:
        """What explains each."""
        return [why for _, why in self.cases]

    @cached_property
    def groups(self) -> list[Group]:
        """By question."""
        members = by_group(self.cases, lambda one: one.pair.a.case)
        found = [Group(name, cases) for name, cases in members.items()]
        chances = [chance for group in found if (chance := group.chance(self.threshold)) is not None]
        return [replace(group, confidence=correction.confidence(chances)) for group in found]

    @property
    def counts(self) -> dict[str, int]:
        """Cases by verdict."""
        found = Counter(pair.verdict for pair in self.pairs)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def ratio(self) -> float:
        """Geometric mean over all cases."""
        return exp(fmean(log(pair.ratio) for pair in self.pairs))

    @property
    def drift(self) -> Interval:
        """By how much the ceilings of one machine changed."""
        return min(pair.drift[0] for pair in self.pairs), max(pair.drift[1] for pair in self.pairs)

    @property
    def detectable(self) -> float | None:
        """The slow-down that would be called in half of such runs, in the case in the middle; None where none would."""
        found = [reach for pair in self.pairs if (reach := pair.detectable) is not None]
        return median(found) if found else None


def against(a: ResultFile, b: ResultFile, threshold: float | None = None) -> Versus:
    """Compare every case that both files hold.

    Args:
        a: the baseline.
        b: the file that is judged.
        threshold: change that counts; None for what the files can tell.

    Raises:
        UserError: they have no case in common, or none of the same work.
    """
    found, machines = match.match(a, b), Machines(a, b)
    machine, frameworks = drift(a, b, found.pairs), _frameworks(found.pairs)
    ratios = pooling.pool([statistics.log_ratio(before.seconds, after.seconds) for before, after in found.pairs])
    least = [machines.seconds(before.case) for before, _ in found.pairs]
    drifts = [machine.of(before, binding(one) or ()) for (before, _), one in zip(found.pairs, least, strict=True)]
    threshold = threshold or usual_threshold(one for one in ratios if one)
    chances = [chance(one, threshold, moved) for one, moved in zip(ratios, drifts, strict=True) if one]
    confidence = correction.confidence(chances)
    pairs = [
        Comparison(
            a=before,
            b=after,
            log_ratio=ratio,
            threshold=threshold,
            confidence=confidence,
            drift=moved,
            frameworks=frameworks.get(_work(before.case)) if before.provenance != "measured" else None,
        )
        for (before, after), ratio, moved in zip(found.pairs, ratios, drifts, strict=True)
    ]
    cases = [Explained(pair, explain(pair, one)) for pair, one in zip(pairs, least, strict=True)]
    return Versus(a=a, b=b, threshold=threshold, cases=cases, unlike=found.unlike)


def usual_threshold(ratios: Iterable[LogRatio]) -> float:
    """1.5 % where the files can tell so little in half of their cases, else 5 %."""
    reaches = [sqrt(high / low) - 1 for low, high in (one.interval() for one in ratios)]
    return FINE if reaches and median(reaches) <= TOLD else COARSE


def _work(case: Case) -> Case:
    """What a case does, whoever's framework does it."""
    return replace(case, name="", implementation="", kernel="", cache="", hbm_bytes=0, flops=0)


def _frameworks(pairs: Iterable[tuple[Measurement, Measurement]]) -> dict[Case, Interval]:
    """Of work that two or more frameworks published on both GPUs, the range of the ratios."""
    ratios: dict[Case, list[tuple[str | None, float]]] = {}
    for before, after in pairs:
        if before.provenance != "measured" and after.provenance != "measured":
            ratios.setdefault(_work(before.case), []).append((before.framework, after.median / before.median))
    return {
        work: (min(ratio for _, ratio in found), max(ratio for _, ratio in found))
        for work, found in ratios.items()
        if len({framework for framework, _ in found}) > 1
    }
