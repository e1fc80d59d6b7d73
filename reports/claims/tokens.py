"""Claims on t(m): the knee, the growth of throughput, and ratios of times."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from reports.claims import evidence as claims_evidence
from reports.claims.evidence import Evidence, Finding, SeriesSum, TokenSeries, sums_by_scope, with_token_series
from reports.claims.verdict import DECIDED_VERDICTS, Interval, Verdict, verdict_by_implementation, verdict_within
from specs import statistics
from specs.measurement import Measurement, weakest_provenance
from specs.roofline import ridge_tokens
from specs.units import STORED_ITEMSIZE

# Knee of a linear: the token count where its time stops being flat, as measured times show it.
#
# t(m) = max(a, c·m) + o over m tokens. a: streaming the weights; c·m: computing; o: the fixed cost of a launch.
# Times alone cannot separate the three parameters, as o hides in both a and c·m. So o is given: the launch latency of
# the same run, or for published times a constant with a range. The knee is a / c tokens.

FLAT_SHARE = 1 / 4
"""Share of the ridge up to which the weights set the time; points there give a."""
STEEP_MULTIPLE = 4
"""Multiple of the ridge from which arithmetic sets the time; points there give c."""
MIN_POINTS = 2
"""Minimum number of points on each side."""
GROWTH_FACTOR = 1.25
"""Factor over the time of one token that marks the model-free knee.

The knee is the token count from which on the time stays above this factor.
"""
CLIFF_FACTOR = 1.1
"""Factor in time of one more token from which on it is a cliff: a new tile."""


@dataclass(frozen=True)
class LaunchOverhead:
    """Launch cost in seconds, with its bounds."""

    seconds: float
    low: float
    high: float


PUBLISHED_OVERHEAD = LaunchOverhead(1.5e-6, 0.5e-6, 2.5e-6)
"""Launch overhead inside a graph, without quantising.

The smallest GEMM of the published tables takes 1.5 to 2.5 us as a whole.
"""


@dataclass(frozen=True)
class Knee:
    """Fitted knee in tokens, with its range.

    The range covers other choices of o, and leaving out any one point.
    """

    tokens: float
    low: float
    high: float


def fit_knee(seconds: Mapping[int, float], ridge: float, overhead: LaunchOverhead) -> Knee | None:
    """Fit the knee to times by tokens.

    None where the sweep ends too early on either side.

    Args:
        seconds: median times by tokens.
        ridge: tokens at which both sides of the roofline meet.
        overhead: o of the model.
    """
    best = _knee_tokens(seconds, ridge, overhead.seconds)
    if not best:
        return None
    tried = [_knee_tokens(seconds, ridge, choice) for choice in (overhead.low, overhead.high)]
    tried += [
        _knee_tokens(_without_point(seconds, tokens), ridge, overhead.seconds)
        for side in _sides(seconds, ridge, overhead.seconds)
        for tokens in _representatives(side)
    ]
    found = [best, *(one for one in tried if one is not None)]
    return Knee(best, min(found), max(found))


class GrowthPoint(NamedTuple):
    """Tokens from which on the time stays above a limit.

    `tokens` is interpolated linearly between the points `below` and `above` the limit.
    """

    tokens: float
    below: int
    above: int


def find_growth_point(seconds: Mapping[int, float], factor: float = GROWTH_FACTOR) -> GrowthPoint | None:
    """Find where the time starts to stay above `factor` times the first time.

    The first time is that of the fewest tokens. None where the time never stays above.
    """
    tokens = sorted(seconds)
    limit = factor * seconds[tokens[0]]
    below = [count for count in tokens if seconds[count] <= limit]
    last = below[-1]
    if last == tokens[-1]:
        return None
    after = tokens[bisect_left(tokens, last) + 1]
    return GrowthPoint(last + (after - last) * (limit - seconds[last]) / (seconds[after] - seconds[last]), last, after)


def find_cliffs(seconds: Mapping[int, float]) -> dict[int, float]:
    """Find tokens after which a single one more costs over a tenth of the time.

    The values are the ratios t(m + 1) / t(m).
    """
    steps = {m: seconds[m + 1] / seconds[m] for m in sorted(seconds) if m + 1 in seconds}
    return {tokens: step for tokens, step in steps.items() if step > CLIFF_FACTOR}


def _knee_tokens(seconds: Mapping[int, float], ridge: float, overhead: float) -> float | None:
    """Return the knee a / c in tokens.

    0 where o may be all of the flat time; None where a side has too few points.
    """
    flat, steep = (list(side.values()) for side in _sides(seconds, ridge, overhead))
    if min(len(flat), len(steep)) < MIN_POINTS or median(steep) <= 0:
        return None
    return max(0.0, median(flat)) / median(steep)


def _sides(seconds: Mapping[int, float], ridge: float, overhead: float) -> tuple[dict[int, float], dict[int, float]]:
    """Return the times of the flat side, and the times per token of the steep side, both by tokens."""
    least, most = STEEP_MULTIPLE * ridge, max(1.0, FLAT_SHARE * ridge)
    flat = {tokens: time - overhead for tokens, time in seconds.items() if tokens <= most}
    return flat, {tokens: (time - overhead) / tokens for tokens, time in seconds.items() if tokens >= least}


def _representatives(side: Mapping[int, float]) -> set[int]:
    """Return the tokens of the least, the middle and the largest value.

    A median without one point depends only on whether that point lies below, at or above the middle.
    """
    ordered = sorted(side, key=side.__getitem__)
    return {ordered[0], ordered[len(ordered) // 2], ordered[-1]}


def _without_point(seconds: Mapping[int, float], tokens: int) -> dict[int, float]:
    return {count: time for count, time in seconds.items() if count != tokens}


def merge_knees(knees: Sequence[Knee]) -> Knee:
    """Return the median knee of several series, with the range of all."""
    return Knee(median(one.tokens for one in knees), min(k.low for k in knees), max(k.high for k in knees))


FEW_TOKENS, MANY_TOKENS = 125, 1000
"""Token counts of the claim; a knee between them explains different times."""
MAX_NAMED_CLIFFS = 3
NO_FLAT_PART = "experts have no flat part: with each token more of them are visited"
NO_DATASHEET = "specs/gpus.py has no peak or bandwidth for it, or its times include quantising, whose cost is unknown"


def judge_knee(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge the knee per GPU and format: overall, then of each linear.

    Experts have no knee.
    """
    return _judge_linears(evidences, _knee_finding, _with_knee_verdict)


def judge_throughput(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge, per GPU and format, up to how many tokens throughput grows.

    The overall finding comes first, then one for each linear.
    """
    return _judge_linears(evidences, _throughput_finding, _with_throughput_verdict)


def _judge_linears(
    evidences: Iterable[Evidence],
    of_linear: Callable[[Evidence, str, str, Sequence[TokenSeries]], Finding],
    verdict: Callable[[Finding], Finding],
) -> Iterator[Finding]:
    """Yield an overall finding and one for each linear.

    Experts have no flat part. A whole layer has no single knee: attention grows with the batch from the first token on.
    """
    for evidence in with_token_series(evidences):
        if evidence.architecture == "whole":
            continue
        if evidence.architecture == "moe":
            yield replace(evidence.blank_finding("tokens"), condition=NO_FLAT_PART)
            continue
        rows = [of_linear(evidence, slug, part, alike) for (slug, part), alike in evidence.parts.items()]
        whole = _overall_knee(evidence, rows)
        yield whole if whole.value is None else verdict(whole)
        yield from rows


def roofline_ridge(evidence: Evidence) -> float | None:
    """Return the tokens at which both sides of the roofline meet.

    None where a ceiling is unknown.
    """
    limits, itemsize = evidence.ceilings, STORED_ITEMSIZE.get(evidence.dtype)
    peak = limits.peak(evidence.dtype) if limits else None
    if not (limits and limits.read_bytes_per_second and peak and itemsize):
        return None
    return ridge_tokens(itemsize, peak, limits.read_bytes_per_second)


def launch_overhead(evidence: Evidence) -> LaunchOverhead | None:
    """Return the launch overhead; None where it is unknown.

    Measured times use that of the same run, published times a constant. Published times of narrow formats include
    quantising the activations, for which no constant is known.
    """
    if evidence.published:
        return PUBLISHED_OVERHEAD if STORED_ITEMSIZE.get(evidence.dtype, 0) > 1 else None
    seconds = evidence.measured.launch_seconds
    return LaunchOverhead(seconds, seconds, seconds) if seconds else None


def series_knee(evidence: Evidence, series: TokenSeries) -> Knee | None:
    """Return the knee of one implementation.

    Its range covers the passes where there are several.
    """
    corner, launch = roofline_ridge(evidence), launch_overhead(evidence)
    if corner is None or launch is None:
        return None
    best = fit_knee(series.seconds, corner, launch)
    if best is None or evidence.published:
        return best
    found = [best, *(one for turn in _times_by_pass(series) if (one := fit_knee(turn, corner, launch)))]
    return Knee(best.tokens, min(one.low for one in found), max(one.high for one in found))


def _times_by_pass(series: TokenSeries) -> list[dict[int, float]]:
    """Return the times by tokens of each pass."""
    passes = min(len(one.seconds) for one in series.points.values())
    return [{m: median(one.seconds[turn]) for m, one in series.points.items()} for turn in range(passes)]


def _blank_finding(evidence: Evidence, slug: str, part: str, alike: Sequence[TokenSeries]) -> Finding:
    """Return a finding on one linear, without its verdict."""
    used = [one for series in alike for one in series.points.values()]
    cases, rests_on = tuple(one.case.name for one in used), weakest_provenance(one.provenance for one in used)
    return replace(evidence.blank_finding("tokens"), scope=part, model=slug, cases=cases, provenance=rests_on)


def _knee_finding(evidence: Evidence, slug: str, part: str, alike: Sequence[TokenSeries]) -> Finding:
    cold = [one for one in alike if not one.maybe_hot]
    used, corner = cold or alike, roofline_ridge(evidence)
    blank = _blank_finding(evidence, slug, part, used)
    if corner is None or launch_overhead(evidence) is None:
        lacking = "no ceilings or no launch latency: run suites/bench_ceilings.py with it"
        return replace(blank, condition=NO_DATASHEET if evidence.published else lacking)
    found = [one for series in used if (one := series_knee(evidence, series))]
    if not found:
        least = f"{MIN_POINTS} points up to {FLAT_SHARE * corner:.0f} and from {STEEP_MULTIPLE * corner:.0f} tokens on"
        return replace(blank, verdict="UNDERPOWERED", condition=f"a ridge at {corner:.0f} tokens needs {least}")
    whole = merge_knees(found)
    figures = replace(blank, value=whole.tokens, low=whole.low, high=whole.high)
    if not cold:
        return replace(figures, verdict="UNDERPOWERED", condition=claims_evidence.MAYBE_HOT)
    grown = [rise.tokens for series in used if (rise := find_growth_point(series.seconds))]
    said = [f"{GROWTH_FACTOR} t(1) at {median(grown):.0f}"] if grown else []
    said += [f"ridge at {corner:.0f}", *_cliffs_text(used)]
    return _with_knee_verdict(replace(figures, condition="; ".join(said)))


def _cliffs_text(alike: Sequence[TokenSeries]) -> list[str]:
    """Return the steepest tile cliffs that most implementations have.

    At a cliff one more token costs a tenth or more.
    """
    steps: dict[int, list[float]] = {}
    for series in alike:
        for tokens, step in find_cliffs(series.seconds).items():
            steps.setdefault(tokens, []).append(step)
    common = {tokens: median(found) for tokens, found in steps.items() if 2 * len(found) > len(alike)}
    worst = sorted(sorted(common, key=lambda tokens: -common[tokens])[:MAX_NAMED_CLIFFS])
    return [f"cliffs {', '.join(f'{m}→{m + 1} +{common[m] - 1:.0%}' for m in worst)}"] if worst else []


def _with_knee_verdict(figures: Finding) -> Finding:
    """Judge whether the knee lies between few and many tokens."""
    low, high = figures.low or 0.0, figures.high or 0.0
    if low >= FEW_TOKENS and high <= MANY_TOKENS:
        return replace(figures, verdict="HOLDS")
    if high < FEW_TOKENS or low > MANY_TOKENS:
        return replace(figures, verdict="REFUTED")
    across = f"the range reaches across {FEW_TOKENS if low < FEW_TOKENS else MANY_TOKENS} tokens; {figures.condition}"
    return replace(figures, verdict="UNDERPOWERED", condition=across)


def _throughput_finding(evidence: Evidence, slug: str, part: str, alike: Sequence[TokenSeries]) -> Finding:
    cold = [one for one in alike if not one.maybe_hot]
    used = cold or alike
    blank = replace(_blank_finding(evidence, slug, part, used), verdict="UNDERPOWERED")
    begins, ends = max(min(series.points) for series in used), min(max(series.points) for series in used)
    if begins > max(1.0, FLAT_SHARE * (roofline_ridge(evidence) or 0)):
        return replace(blank, condition=f"the sweep begins at {begins} tokens, where the time may grow already")
    found = [one for series in used if (one := find_growth_point(series.seconds))]
    if len(found) < len(used):
        return replace(blank, condition=f"the time is still flat where the sweep ends, at {ends} tokens")
    low, high = _growth_range(evidence, used, found)
    figures = replace(blank, value=median(one.tokens for one in found), low=low, high=high)
    if low is None:
        return replace(figures, condition="a single framework or a single pass gives no interval")
    return _with_throughput_verdict(figures) if cold else replace(figures, condition=claims_evidence.MAYBE_HOT)


def _growth_range(
    evidence: Evidence, used: Sequence[TokenSeries], found: Sequence[GrowthPoint]
) -> tuple[float, float] | tuple[None, None]:
    """Return the range of growth points, over frameworks or over passes.

    It spans the last point below to the first above. (None, None) for a single framework or pass.
    """
    if evidence.published:
        several = len({series.implementation for series in used}) > 1
        return (min(one.below for one in found), max(one.above for one in found)) if several else (None, None)
    turns = [_times_by_pass(series) for series in used]
    if min(map(len, turns)) == 1:
        return None, None
    ends = [*found, *(one for passes in turns for turn in passes if (one := find_growth_point(turn)))]
    return min(one.below for one in ends), max(one.above for one in ends)


def _with_throughput_verdict(figures: Finding) -> Finding:
    """Judge the growth of throughput.

    Throughput grows in proportion to the tokens while the time is flat, never without end.
    """
    if figures.high is not None and figures.high <= 2:
        return replace(figures, verdict="REFUTED")
    return replace(
        figures, verdict="HOLDS_IF", condition=f"up to {figures.low:.0f} tokens; from {figures.high:.0f} on not"
    )


def _overall_knee(evidence: Evidence, rows: Sequence[Finding]) -> Finding:
    """Return the median and range of the judged rows, with the verdict open.

    Where no row was judged, the condition is the first row's reason.
    """
    judged = claims_evidence.decided_rows(evidence, rows)
    if not judged:
        whole = claims_evidence.merge_findings(evidence, rows[:1], "tokens")
        return replace(whole, verdict=rows[0].verdict, value=None, low=None, high=None, condition=rows[0].condition)
    corner = roofline_ridge(evidence)
    condition = claims_evidence.coverage_text(evidence, rows, judged) + (
        f"; ridge at {corner:.0f} tokens" if corner else ""
    )
    return replace(claims_evidence.merge_findings(evidence, judged, "tokens"), condition=condition)


# Claims of the form "b tokens take as long as a": t(b) / t(a) of linears, layers and models, and overall.

SAME_TIME_FACTOR = 1.25
"""Factor within which times count as the same."""
MAX_NAMED = 2
"""Number of linears that a condition names besides counting all."""


@dataclass(frozen=True)
class TimeRatio:
    """Ratio t(b) / t(a) by one implementation.

    `interval` comes from its passes; None for a single pass.
    """

    implementation: str
    value: float
    interval: Interval
    used: Sequence[Measurement]

    @property
    def own_interval(self) -> Interval:
        """Interval from the passes; the value alone for a single pass."""
        return self.interval or (self.value, self.value)

    @classmethod
    def from_measurements(
        cls, stack: SeriesSum, before: Sequence[Measurement], after: Sequence[Measurement]
    ) -> "TimeRatio":
        """Return the ratio of the summed times of several linears.

        For a single linear, the ratio of its medians.
        """
        if len(before) == 1:
            value = after[0].median / before[0].median
            interval = statistics.ratio_interval(before[0].seconds, after[0].seconds)
        else:
            a, b = stack.pass_sums(before), stack.pass_sums(after)
            value, interval = statistics.mean(b) / statistics.mean(a), statistics.ratio_interval(a, b)
        return cls(stack.series[0].implementation, value, interval, [*before, *after])


def judge_token_ratio(evidences: Iterable[Evidence], a: int, b: int) -> Iterator[Finding]:
    """Judge t(b) / t(a) per GPU, format and kind of layer.

    The overall finding comes first, then one for each model, layer and linear.
    """
    for evidence in with_token_series(evidences):
        rows = [_scope_finding(evidence, slug, scope, stacks, a, b) for slug, scope, stacks in sums_by_scope(evidence)]
        yield _overall_ratio(evidence, rows)
        yield from rows


def _scope_finding(evidence: Evidence, slug: str, scope: str, stacks: Sequence[SeriesSum], a: int, b: int) -> Finding:
    """Judge one linear or one sum of linears, by all implementations timed cold."""
    blank = replace(evidence.blank_finding("ratio"), scope=scope, model=slug)
    cold = [stack for stack in stacks if not stack.maybe_hot(a, b)]
    sound = [stack for stack in cold if not stack.is_doubtful(a, b)]
    ratios = [ratio for stack in sound or cold or stacks if (ratio := _time_ratio(stack, a, b))]
    if not ratios:
        return replace(blank, condition=f"no times of both {a} and {b} tokens")
    interval = overall_interval(ratios, published=evidence.published)
    verdict, condition = verdict_by_implementation(
        interval, [(one.implementation, one.own_interval) for one in ratios], 0, SAME_TIME_FACTOR, str(SAME_TIME_FACTOR)
    )
    if not sound:
        verdict, condition = "UNDERPOWERED", claims_evidence.ODD_TIMES if cold else claims_evidence.MAYBE_HOT
    elif odd := [stack.series[0].implementation for stack in cold if stack not in sound]:
        condition = "; ".join(filter(None, (condition, f"without {', '.join(odd)}: slower than with more tokens")))
    return ratio_finding(blank, ratios, verdict, condition, interval)


def _time_ratio(stack: SeriesSum, a: int, b: int) -> TimeRatio | None:
    pairs = [pair for one in stack.series if (pair := one.at(a, b))]
    if len(pairs) < len(stack.series):
        return None
    return TimeRatio.from_measurements(stack, [before for before, _ in pairs], [after for _, after in pairs])


def ratio_finding(
    blank_finding: Finding,
    ratios: Sequence[TimeRatio],
    verdict: Verdict,
    condition: str,
    interval: Interval,
) -> Finding:
    """Return a row with the median of the implementations and all cases used."""
    used = [one for ratio in ratios for one in ratio.used]
    low, high = interval or (None, None)
    return replace(
        blank_finding,
        verdict=verdict,
        value=median(ratio.value for ratio in ratios),
        low=low,
        high=high,
        condition=condition,
        cases=tuple(one.case.name for one in used),
        provenance=weakest_provenance(one.provenance for one in used),
        interpolation_error=max((one.interpolation_error for one in used if one.interpolation_error), default=None),
    )


def overall_interval(ratios: Sequence[TimeRatio], *, published: bool) -> Interval:
    """Return the range over frameworks (published) or over passes (measured).

    None for a single framework or pass.
    """
    if published:
        values = [ratio.value for ratio in ratios]
        several = len({ratio.implementation for ratio in ratios}) > 1  # two kernels of one framework count once
        return (min(values), max(values)) if several else None
    ends = [ratio.interval for ratio in ratios if ratio.interval]
    return (min(ends)[0], max(high for _, high in ends)) if len(ends) == len(ratios) else None


def _overall_ratio(evidence: Evidence, rows: Sequence[Finding]) -> Finding:
    judged = claims_evidence.decided_rows(evidence, rows)
    if not judged:
        found = [row for row in rows if row.value is not None and row.condition]
        verdict: Verdict = "UNDERPOWERED" if found else "NOT_MEASURED"
        whole = claims_evidence.merge_findings(evidence, found or rows, "ratio")
        return replace(whole, verdict=verdict, low=None, high=None, condition=(found or rows)[0].condition)
    whole = claims_evidence.merge_findings(evidence, judged, "ratio")
    over = claims_evidence.coverage_text(evidence, rows, judged)
    decided = verdict_within(whole.interval, 0, SAME_TIME_FACTOR)
    if decided in DECIDED_VERDICTS:
        return replace(whole, verdict=decided, condition=over)
    return replace(whole, verdict="HOLDS_IF", condition=_within_text(judged))


def _within_text(judged: Sequence[Finding]) -> str:
    """Return where the claim holds, for an overall finding with mixed rows."""
    some = [row for row in judged if row.verdict != "REFUTED"]
    everywhere = sum(1 for row in judged if row.verdict == "HOLDS")
    text = f"{len(some)} of {len(judged)} stay within {SAME_TIME_FACTOR} in a framework, {everywhere} in all"
    ways = Counter(_scope_suffix(row) for row in judged)
    if len(ways) > 1:  # experts: by distribution of the tokens; layers: by context
        count = Counter(map(_scope_suffix, some))
        text += f" ({', '.join(f'{way} {count[way]} of {of}' for way, of in sorted(ways.items()))})"
    named = sorted(some, key=lambda row: row.verdict)[:MAX_NAMED]
    return text + "".join(f"; {row.model} {row.scope} {row.condition}".rstrip() for row in named)


def _scope_suffix(row: Finding) -> str:
    """Return the end of a scope; empty for dense linears.

    Examples of scopes: `experts tp1 balanced`, `layer tp1 ctx512`.
    """
    return " ".join(row.scope.split()[2:])
