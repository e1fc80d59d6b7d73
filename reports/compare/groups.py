"""Cases by the question that they answer, and each group taken together."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from statistics import fmean, median
from typing import TypeVar

from reports.compare.explain import Explained, Explanation
from reports.compare.resources import RESOURCES
from reports.compare.verdict import VERDICTS, Comparison, Interval, Verdict, around, chance, decide, less_drift
from specs import statistics
from specs.measurement import Case
from specs.statistics import LogRatio

GROUPS = ("decode", "prefill", "attention", "experts", "communication", "split", "ceilings")
OTHERS = {
    "messages": "communication",
    "moe": "experts",
    "tp_vs_pp": "split",
    "shares": "split",
}
"""Questions of the suites that belong to a group of another name."""
MOST_DECODED = 256
"""Tokens up to which a linear or a layer is taken for a decode batch; beyond they are a prompt's."""

T = TypeVar("T")


def group_of(case: Case) -> str:
    """The question that a case answers; one that no group knows stands for itself."""
    if case.question in OTHERS:
        return OTHERS[case.question]
    if case.question not in ("sweep", "layer"):
        return case.question
    if case.batch is not None and case.tokens is not None:
        return "decode" if case.batch == case.tokens else "prefill"
    return "decode" if (case.tokens or 1) <= MOST_DECODED else "prefill"


def by_group(items: Iterable[T], case_of: Callable[[T], Case]) -> dict[str, list[T]]:
    """The members of each group: those of `GROUPS` first, then others as they come."""
    found: dict[str, list[T]] = {}
    for item in items:
        found.setdefault(group_of(case_of(item)), []).append(item)
    return dict(sorted(found.items(), key=lambda one: GROUPS.index(one[0]) if one[0] in GROUPS else len(GROUPS)))


@dataclass(frozen=True)
class Group:
    """Comparisons of one question.

    Attributes:
        name: the question.
        cases: each with what explains its ratio.
        confidence: of the interval that has to lie beyond half the threshold: raised for the number of questions.
    """

    name: str
    cases: Sequence[Explained]
    confidence: float = 0.95

    @cached_property
    def pairs(self) -> list[Comparison]:
        """The cases alone."""
        return [pair for pair, _ in self.cases]

    @cached_property
    def explanations(self) -> list[Explanation]:
        """What explains each."""
        return [why for _, why in self.cases]

    @property
    def ratio(self) -> float:
        """Geometric mean of the ratios: each case counts alike."""
        return exp(fmean(log(pair.ratio) for pair in self.pairs))

    @property
    def span(self) -> Interval:
        """The least and the greatest ratio."""
        ratios = [pair.ratio for pair in self.pairs]
        return min(ratios), max(ratios)

    @cached_property
    def log_ratio(self) -> LogRatio | None:
        """The mean over cases that have passes, with the error between these: a slow pass moves all of its cases."""
        pairs = [pair for pair in self.pairs if pair.basis == "passes"]
        if not pairs:
            return None
        sides = [_by_pass([pair.a.seconds for pair in pairs]), _by_pass([pair.b.seconds for pair in pairs])]
        return statistics.log_ratio(*([(exp(one),) for one in side] for side in sides))

    @property
    def interval(self) -> Interval | None:
        """95 % interval on the geometric mean, clustered by pass; None where no case has passes."""
        return self._interval(0.95)

    def _interval(self, confidence: float) -> Interval | None:
        return around(self.ratio, self.log_ratio.interval(confidence)) if self.log_ratio else None

    @property
    def drift(self) -> Interval:
        """By how much the machine itself may have changed the case in the middle."""
        return median(pair.drift[0] for pair in self.pairs), median(pair.drift[1] for pair in self.pairs)

    def at(self, threshold: float) -> Verdict:
        """Whether the group as a whole changed by more than this, and than the machine itself."""
        widened = self._interval(self.confidence)
        return decide(self.ratio, self.interval, widened and less_drift(widened, self.drift), threshold)

    def chance(self, threshold: float) -> float | None:
        """Of such a mean, or one further out, without a change by half the threshold; None where it has no interval."""
        return chance(self.log_ratio, threshold, self.drift) if self.log_ratio else None

    @property
    def counts(self) -> dict[str, int]:
        """Cases by verdict."""
        found = Counter(pair.verdict for pair in self.pairs)
        return {verdict: found[verdict] for verdict in VERDICTS}

    def resource(self, name: str) -> Interval | None:
        """What a resource changed by, the least and the greatest of the cases that need it: formats have peaks."""
        found = [one.could[name] for one in self.explanations if name in one.could]
        return (min(found), max(found)) if found else None

    @property
    def explained(self) -> dict[str, int]:
        """Cases that each resource explains, the most first."""
        return dict(Counter(one.by for one in self.explanations if one.by).most_common())

    def left(self, threshold: float) -> int:
        """Cases that changed by more than this and that none of their resources explains."""
        changed = [why for pair, why in self.cases if abs(log(pair.ratio)) > log(1 + threshold)]
        return sum(1 for why in changed if not why.by and why.expected is not None)

    @property
    def unknown(self) -> int:
        """Cases of which no resource is known on both machines."""
        return sum(1 for why in self.explanations if why.expected is None)

    @property
    def unexplained(self) -> float:
        """Geometric mean of what stays unexplained of the cases that something could explain; else of all ratios."""
        known = [one.unexplained for one in self.explanations if one.expected is not None]
        return exp(fmean(log(one) for one in known)) if known else self.ratio

    @property
    def resources(self) -> dict[str, Interval]:
        """The ratios of every resource that a case needs."""
        return {name: ratio for name in RESOURCES if (ratio := self.resource(name)) is not None}


def _by_pass(cases: Sequence[statistics.Passes]) -> list[float]:
    """The mean over cases of the logarithm of a pass's median, for each pass that all cases have."""
    return [fmean(log(median(case[turn])) for case in cases) for turn in range(min(map(len, cases)))]
