"""Comparison of two files: matched cases, verdicts, and groups by question."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, log, sqrt
from operator import attrgetter
from statistics import fmean, median, variance
from typing import TypeVar

from reports.compare.explain import (
    RESOURCES,
    ExplainedCase,
    Explanation,
    MachinePair,
    MeasurementPair,
    binding_resources,
    explain,
    machine_drift,
)
from reports.compare.verdict import (
    VERDICTS,
    CaseComparison,
    Interval,
    Verdict,
    decide_verdict,
    include_ratio,
    p_value,
    remove_drift,
)
from reports.results import ResultFile
from specs import statistics
from specs.errors import UserError
from specs.measurement import Case, key_without
from specs.statistics import LogRatio

# Confidence of each verdict among many: the false discovery rate of Benjamini and Hochberg.
#
# Of a thousand equal cases, fifty leave their 95 % intervals by chance. So the p-values are sorted, and as many cases
# are called as keep wrong calls at 1 %. All intervals get the confidence at which exactly these cases lie beyond
# (Benjamini & Yekutieli 2005, doi:10.1198/016214504000001907). Where nothing changed, this is Bonferroni's limit: the
# chance of any wrong call stays below 1 %. Where much changed, the limit is lower.

FALSE_DISCOVERY_RATE = 0.01
"""Share of calls that may be wrong; where nothing changed, the chance of any."""


def fdr_confidence(p_values: Iterable[float]) -> float:
    """Return the confidence of all intervals, from the p-values of the cases.

    Args:
        p_values: two-sided, without a change; one for each compared case.
    """
    ordered = sorted(p_values)
    count = max(len(ordered), 1)
    called = max(
        (rank for rank, one in enumerate(ordered, start=1) if one <= FALSE_DISCOVERY_RATE * rank / count), default=1
    )
    return 1 - FALSE_DISCOVERY_RATE * called / count


GROUP_ORDER = ("decode", "prefill", "attention", "experts", "communication", "split", "ceilings")
GROUP_OF_QUESTION = {
    "messages": "communication",
    "moe": "experts",
    "tp_vs_pp": "split",
    "shares": "split",
}
"""Questions of the suites that belong to a group of another name."""
MAX_DECODE_TOKENS = 256
"""Tokens up to which a linear or layer counts as decode; above, as prefill."""

T = TypeVar("T")


def group_of(case: Case) -> str:
    """Return the group of a case; a question without a group is its own."""
    if case.question in GROUP_OF_QUESTION:
        return GROUP_OF_QUESTION[case.question]
    if case.question not in ("sweep", "layer"):
        return case.question
    if case.batch is not None and case.tokens is not None:
        return "decode" if case.batch == case.tokens else "prefill"
    return "decode" if (case.tokens or 1) <= MAX_DECODE_TOKENS else "prefill"


def by_group(items: Iterable[T], case_of: Callable[[T], Case]) -> dict[str, list[T]]:
    """Group items: those of `GROUP_ORDER` first, then others as they come."""
    found: dict[str, list[T]] = {}
    for item in items:
        found.setdefault(group_of(case_of(item)), []).append(item)
    return dict(
        sorted(found.items(), key=lambda one: GROUP_ORDER.index(one[0]) if one[0] in GROUP_ORDER else len(GROUP_ORDER))
    )


class ExplainedCases:
    """Both halves of `cases`."""

    cases: Sequence[ExplainedCase]

    @cached_property
    def pairs(self) -> list[CaseComparison]:
        """Comparisons without their explanations."""
        return [pair for pair, _ in self.cases]

    @cached_property
    def explanations(self) -> list[Explanation]:
        """Explanations of the cases."""
        return [why for _, why in self.cases]


@dataclass(frozen=True)
class CaseGroup(ExplainedCases):
    """Comparisons of one question.

    Attributes:
        name: the question.
        cases: comparisons with their explanations.
        confidence: confidence of the interval that must lie beyond half the threshold; raised for many questions.
    """

    name: str
    cases: Sequence[ExplainedCase]
    confidence: float = 0.95

    @property
    def ratio(self) -> float:
        """Geometric mean of the ratios, with equal weight for each case."""
        return exp(fmean(log(pair.ratio) for pair in self.pairs))

    @property
    def span(self) -> Interval:
        """Smallest and largest ratio."""
        ratios = [pair.ratio for pair in self.pairs]
        return min(ratios), max(ratios)

    @cached_property
    def log_ratio(self) -> LogRatio | None:
        """Mean log ratio of the cases with passes, with the error between passes.

        A slow pass moves all of its cases. None where no case has passes.
        """
        pairs = [pair for pair in self.pairs if pair.basis == "passes"]
        if not pairs:
            return None
        sides = [
            _mean_log_by_pass([pair.a.seconds for pair in pairs]),
            _mean_log_by_pass([pair.b.seconds for pair in pairs]),
        ]
        return statistics.log_ratio(*([(exp(one),) for one in side] for side in sides))

    @property
    def interval(self) -> Interval | None:
        """95 % interval on the geometric mean, clustered by pass; None without passes."""
        return self._interval(0.95)

    def _interval(self, confidence: float) -> Interval | None:
        return include_ratio(self.ratio, self.log_ratio.interval(confidence)) if self.log_ratio else None

    @property
    def drift(self) -> Interval:
        """Median over cases of the machine's own change, as a range of factors."""
        return median(pair.drift[0] for pair in self.pairs), median(pair.drift[1] for pair in self.pairs)

    def verdict_at(self, threshold: float) -> Verdict:
        """Return the verdict on the group, against this change and the drift."""
        widened = self._interval(self.confidence)
        return decide_verdict(self.ratio, self.interval, widened and remove_drift(widened, self.drift), threshold)

    def p_value(self, threshold: float) -> float | None:
        """Return the p-value of the mean without a change by half the threshold.

        None where there is no interval.
        """
        return p_value(self.log_ratio, threshold, self.drift) if self.log_ratio else None

    @property
    def counts(self) -> dict[str, int]:
        """Number of cases by verdict."""
        found = Counter(pair.verdict for pair in self.pairs)
        return {verdict: found[verdict] for verdict in VERDICTS}

    def resource(self, name: str) -> Interval | None:
        """Return the smallest and largest ratio of a resource over cases that need it.

        The ratios differ because formats have different peaks.
        """
        return self.resources.get(name)

    @cached_property
    def explained(self) -> dict[str, int]:
        """Number of cases that each resource explains, the largest first."""
        return dict(Counter(one.explained_by for one in self.explanations if one.explained_by).most_common())

    def unexplained_count(self, threshold: float) -> int:
        """Return the number of cases above this change that no resource explains."""
        changed = [why for pair, why in self.cases if abs(log(pair.ratio)) > log(1 + threshold)]
        return sum(1 for why in changed if not why.explained_by and why.expected is not None)

    @property
    def unknown(self) -> int:
        """Number of cases without a resource that is known on both machines."""
        return sum(1 for why in self.explanations if why.expected is None)

    @property
    def unexplained(self) -> float:
        """Geometric mean of the unexplained ratios.

        Only cases with a known resource count; where there are none, all ratios do.
        """
        known = [one.unexplained for one in self.explanations if one.expected is not None]
        return exp(fmean(log(one) for one in known)) if known else self.ratio

    @cached_property
    def resources(self) -> dict[str, Interval]:
        """Smallest and largest ratio of every resource that a case needs."""
        found: dict[str, list[float]] = {name: [] for name in RESOURCES}
        for one in self.explanations:
            for name, ratio in one.resource_ratios.items():
                found[name].append(ratio)
        return {name: (min(ratios), max(ratios)) for name, ratios in found.items() if ratios}


def _mean_log_by_pass(cases: Sequence[statistics.Passes]) -> list[float]:
    """Return, for each common pass, the mean over cases of the log of its median."""
    return [fmean(log(median(case[turn])) for case in cases) for turn in range(min(map(len, cases)))]


# Matching: the cases that two files have in common, and which of them are the same work.

WORK_FIELDS = (
    "model", "op", "dtype", "layer", "tp", "pp", "tokens", "n", "k", "context", "batch", "layers", "vocab", "ranks",
    "message_bytes", "late_seconds",
)  # fmt: skip
"""Fields that must agree for two times to be of the same work."""
CEILING_FIELDS = ("flops", "hbm_bytes")
"""Further fields for ceilings: a read has no shape but its bytes."""
_work_values = attrgetter(*WORK_FIELDS, *CEILING_FIELDS)
DISTINGUISHING_FIELDS = ("model", "dtype", "tp", "pp", "tokens", "implementation", "question")
"""Fields that distinguish files without a common case."""
UNKNOWN = "unknown"
"""Value in a profile's cases for facts that no run provides."""
MAX_VALUES = 6
"""Number of values of a field that are named before the rest is counted."""


@dataclass(frozen=True)
class MatchedCases:
    """Cases that both files hold, in the order of the first file.

    `mismatched` says, by case name, why a case is not the same work.
    """

    pairs: Sequence[MeasurementPair]
    mismatched: dict[str, str]


def match_cases(a: ResultFile, b: ResultFile) -> MatchedCases:
    """Pair two files by the names of their cases.

    Raises:
        UserError: no case is in both, or none is the same work.
    """
    others = {one.case.name: one for one in b.measurements}
    common = [(one, others[one.case.name]) for one in a.measurements if one.case.name in others]
    if not common:
        counts = f"{len(a.measurements)} and {len(b.measurements)} cases"
        raise UserError(f"{a.path} and {b.path}: {counts}, none in both{_no_match_hint(a, b)}")
    unlike = {one.case.name: why for one, other in common if (why := _work_mismatch(one.case, other.case))}
    if len(unlike) == len(common):
        name, why = next(iter(unlike.items()))
        raise UserError(
            f"{a.path} and {b.path}: {len(common)} cases have the same names, none is the same work, as {name}: {why}; "
            "measure both with the same options"
        )
    return MatchedCases([pair for pair in common if pair[0].case.name not in unlike], unlike)


def cases_only_in(one: ResultFile, others: Iterable[ResultFile]) -> list[str]:
    """Return the names of the cases that no other file has."""
    elsewhere = {measurement.case.name for other in others for measurement in other.measurements}
    return [measurement.case.name for measurement in one.measurements if measurement.case.name not in elsewhere]


def missing_cases(one: ResultFile, others: Sequence[ResultFile]) -> list[str]:
    """Return the cases that two or more other files have and this file lacks."""
    own, seen = {measurement.case.name for measurement in one.measurements}, dict[str, int]()
    for other in others:
        for measurement in other.measurements:
            seen[measurement.case.name] = seen.get(measurement.case.name, 0) + 1
    return [name for name, count in seen.items() if count > 1 and name not in own]


def _work_mismatch(one: Case, other: Case) -> str:
    if _work_values(one) == _work_values(other):
        return ""
    fields = (*WORK_FIELDS, *CEILING_FIELDS) if one.question == "ceilings" else WORK_FIELDS
    changed = [(field, getattr(one, field), getattr(other, field)) for field in fields]
    told = [one for one in changed if not {None, UNKNOWN} & set(one[1:])]
    return ", ".join(f"{field} {left} → {right}" for field, left, right in told if left != right)


def _no_match_hint(a: ResultFile, b: ResultFile) -> str:
    """Return a field in which no cases agree, and what to do."""
    for field in DISTINGUISHING_FIELDS:
        left, right = (_values(file, field) for file in (a, b))
        if left and right and not set(left) & set(right):
            name = "impl" if field == "implementation" else field
            told = f"{name} {_join_values(left)} in the one and {_join_values(right)} in the other"
            how = "run the same suites" if field == "question" else f"measure both with the same --{name}"
            return f": {told}; {how}"
    return "; run the same suites with the same options"


def _values(file: ResultFile, field: str) -> list[str]:
    found = (getattr(one.case, field) for one in file.measurements if one.case.question != "ceilings")
    return list(dict.fromkeys(str(value) for value in found if value is not None))


def _join_values(values: Sequence[str]) -> str:
    more = f" and {len(values) - MAX_VALUES} more" if len(values) > MAX_VALUES else ""
    return ", ".join(values[:MAX_VALUES]) + more


# Moderated variances: the noise of all cases informs the noise of each.
#
# Six passes estimate the spread of a case badly. By chance it looks small in some of hundreds of cases, and a limit
# high enough for these hides real changes in others. So each variance is drawn towards the common variance: less the
# more the cases differ in noise, and less the more passes a case has. This is the moderated t of Smyth 2004
# (doi:10.2202/1544-6115.1027). The data set the amount: variances of cases with equal noise scatter as chi-square over
# its degrees of freedom, and any further scatter is a true difference.
#
# Two assumptions of the method do not hold here. A case may be far noisier than the rest: above nine in ten of equal
# noise, it keeps its own variance. And a disturbed pass disturbs all of its cases, so many cases tell less than they
# seem to. So the common variance counts for at most twice a case's own degrees of freedom.

MIN_CASES = 10
"""Minimum number of cases; fewer say too little of each other."""
MAX_PRIOR_WEIGHT = 2
"""Maximum ratio of the common variance's degrees of freedom to a case's own."""
OUTLIER_SHARE = 0.1
"""Share of equally noisy cases with a variance above the limit for moderation."""


def shrink_variances(ratios: Sequence[LogRatio | None]) -> list[LogRatio | None]:
    """Return the ratios with moderated errors; all unchanged where few have one."""
    noisy = [one for one in ratios if one and one.error]
    if len(noisy) < MIN_CASES:
        return list(ratios)
    common, freedom = _fit_prior(noisy)
    return [_moderate(one, common, freedom) if one else None for one in ratios]


def _variance(one: LogRatio) -> float:
    """Return the variance of one pass."""
    return one.error**2 * one.passes


def _moderate(one: LogRatio, common: float, freedom: float) -> LogRatio:
    from scipy.special import chdtri

    own = _variance(one)
    if own > common * float(chdtri(one.degrees_of_freedom, OUTLIER_SHARE)) / one.degrees_of_freedom:
        return one
    together = freedom + one.degrees_of_freedom
    drawn = (freedom * common + one.degrees_of_freedom * own) / together
    return replace(one, error=sqrt(drawn / one.passes), degrees_of_freedom=together)


def _fit_prior(noisy: Sequence[LogRatio]) -> tuple[float, float]:
    """Return the common variance of a pass, and its degrees of freedom."""
    from scipy.optimize import brentq  # imported here: most commands need no SciPy
    from scipy.special import digamma, polygamma

    logs = [
        log(_variance(one)) - float(digamma(one.degrees_of_freedom / 2)) + log(one.degrees_of_freedom / 2)
        for one in noisy
    ]
    beyond_chance = variance(logs) - fmean(float(polygamma(1, one.degrees_of_freedom / 2)) for one in noisy)
    half = MAX_PRIOR_WEIGHT * median(one.degrees_of_freedom for one in noisy) / 2
    if beyond_chance > float(polygamma(1, half)):
        half = float(brentq(lambda half: float(polygamma(1, half)) - beyond_chance, 1e-3, half))
    return exp(fmean(logs) + float(digamma(half)) - log(half)), 2 * half


# One file against the baseline: every common case is judged, explained and grouped.

FINE_THRESHOLD, COARSE_THRESHOLD = 0.015, 0.05
"""Default thresholds: 1.5 % where files can resolve so little, else 5 %."""
MAX_FINE_REACH = 0.02
"""Largest reach of the median 95 % interval, either way, for the fine threshold."""


@dataclass(frozen=True, kw_only=True)
class Comparison(ExplainedCases):
    """Comparison of file b with file a.

    Attributes:
        a, b: the files.
        threshold: change that counts.
        cases: cases of the same work in both files, with their explanations.
        mismatched: by case name, why the work differs.
    """

    a: ResultFile
    b: ResultFile
    threshold: float
    cases: Sequence[ExplainedCase]
    mismatched: Mapping[str, str]

    @cached_property
    def groups(self) -> list[CaseGroup]:
        """Cases grouped by question."""
        members = by_group(self.cases, lambda one: one.pair.a.case)
        found = [CaseGroup(name, cases) for name, cases in members.items()]
        chances = [chance for group in found if (chance := group.p_value(self.threshold)) is not None]
        return [replace(group, confidence=fdr_confidence(chances)) for group in found]

    @property
    def counts(self) -> dict[str, int]:
        """Number of cases by verdict."""
        found = Counter(pair.verdict for pair in self.pairs)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def ratio(self) -> float:
        """Geometric mean of the ratios over all cases."""
        return exp(fmean(log(pair.ratio) for pair in self.pairs))

    @property
    def drift(self) -> Interval:
        """Smallest and largest change of the ceilings of one machine, as factors."""
        return min(pair.drift[0] for pair in self.pairs), max(pair.drift[1] for pair in self.pairs)

    @property
    def detectable(self) -> float | None:
        """Slowdown that is detected half the time (median case).

        None where none would be detected.
        """
        found = [reach for pair in self.pairs if (reach := pair.detectable) is not None]
        return median(found) if found else None


def compare_files(a: ResultFile, b: ResultFile, threshold: float | None = None) -> Comparison:
    """Compare every case that both files hold.

    Args:
        a: the baseline.
        b: the file that is judged.
        threshold: change that counts; None to derive it from the files.

    Raises:
        UserError: the files have no case in common, or none of the same work.
    """
    found, machines = match_cases(a, b), MachinePair(a, b)
    machine, frameworks = machine_drift(a, b, found.pairs), _frameworks_by_pair(found.pairs)
    ratios = shrink_variances([statistics.log_ratio(before.seconds, after.seconds) for before, after in found.pairs])
    least = [machines.seconds(before.case) for before, _ in found.pairs]
    drifts = [
        machine.range_for(before, binding_resources(one) or ())
        for (before, _), one in zip(found.pairs, least, strict=True)
    ]
    threshold = threshold or default_threshold(one for one in ratios if one)
    chances = [p_value(one, threshold, moved) for one, moved in zip(ratios, drifts, strict=True) if one]
    confidence = fdr_confidence(chances)
    pairs = [
        CaseComparison(
            a=before,
            b=after,
            log_ratio=ratio,
            threshold=threshold,
            confidence=confidence,
            drift=moved,
            frameworks=over,
        )
        for (before, after), ratio, moved, over in zip(found.pairs, ratios, drifts, frameworks, strict=True)
    ]
    cases = [ExplainedCase(pair, explain(pair, one)) for pair, one in zip(pairs, least, strict=True)]
    return Comparison(a=a, b=b, threshold=threshold, cases=cases, mismatched=found.mismatched)


def default_threshold(ratios: Iterable[LogRatio]) -> float:
    """Return 1.5 % where half of the cases can resolve so little, else 5 %."""
    reaches = [sqrt(high / low) - 1 for low, high in (one.interval() for one in ratios)]
    return FINE_THRESHOLD if reaches and median(reaches) <= MAX_FINE_REACH else COARSE_THRESHOLD


_work_key = key_without("name", "implementation", "kernel", "cache", "hbm_bytes", "flops")
"""Work of a case, without the framework that does it."""


def _frameworks_by_pair(pairs: Sequence[MeasurementPair]) -> list[Interval | None]:
    """Return the range of ratios over frameworks, for each pair; None for a pair that was measured.

    Only work that two or more frameworks published on both GPUs has a range.
    """
    ratios: dict[tuple[object, ...], list[tuple[str | None, float]]] = {}
    works = [_work_key(before.case) if before.provenance != "measured" else None for before, _ in pairs]
    for (before, after), work in zip(pairs, works, strict=True):
        if work and after.provenance != "measured":
            ratios.setdefault(work, []).append((before.framework, after.median / before.median))
    spans = {
        work: (min(ratio for _, ratio in found), max(ratio for _, ratio in found))
        for work, found in ratios.items()
        if len({framework for framework, _ in found}) > 1
    }
    return [spans.get(work) if work else None for work in works]
