"""Claims about the shape of t(m): where the knee lies, and how far throughput grows with the batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median

from reports import knee, overall
from reports.evidence import Evidence, Series, over_tokens, weakest
from reports.finding import Finding
from reports.knee import Grown, Knee, Overhead
from specs.roofline import ridge_tokens
from specs.units import ITEMSIZE

FEW, MANY = 125, 1000
"""A knee between these explains why they take different times."""
CLIFFS_NAMED = 3
NO_FLAT = "experts have no flat part: with each token more of them are visited"
NO_DATASHEET = "specs/gpus.py has no peak or bandwidth for it, or its times include quantising, whose cost is unknown"


def judge_knee(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """For each GPU and format an overall knee, then that of each linear; experts have none."""
    return _judge(evidences, _knee, _placed)


def judge_throughput(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """For each GPU and format the tokens up to which throughput grows with them, overall and for each linear."""
    return _judge(evidences, _flat, _grows)


def _judge(
    evidences: Iterable[Evidence],
    of_linear: Callable[[Evidence, str, str, Sequence[Series]], Finding],
    verdict: Callable[[Finding], Finding],
) -> Iterator[Finding]:
    """An overall finding and one for each linear; of experts that they have no flat part.

    A whole layer has no single knee: attention grows with the batch from the first token on.
    """
    for evidence in over_tokens(evidences):
        if evidence.architecture == "whole":
            continue
        if evidence.architecture == "moe":
            yield replace(evidence.blank("tokens"), condition=NO_FLAT)
            continue
        rows = [of_linear(evidence, slug, part, alike) for (slug, part), alike in evidence.parts.items()]
        whole = _overall(evidence, rows)
        yield whole if whole.value is None else verdict(whole)
        yield from rows


def ridge(evidence: Evidence) -> float | None:
    """Tokens at which the two sides of the roofline meet; None where a ceiling is unknown."""
    limits, itemsize = evidence.limits, ITEMSIZE.get(evidence.dtype)
    peak = limits.peak(evidence.dtype) if limits else None
    if not (limits and limits.read_bytes_per_second and peak and itemsize):
        return None
    return ridge_tokens(itemsize, peak, limits.read_bytes_per_second)


def overhead(evidence: Evidence) -> Overhead | None:
    """What a launch costs: measured in the same run, or the constant for published times; None if unknown.

    Published times of narrow formats include quantising the activations, which no constant is known for.
    """
    if evidence.published:
        return knee.PUBLISHED if ITEMSIZE.get(evidence.dtype, 0) > 1 else None
    seconds = evidence.measured.launch_seconds
    return Overhead(seconds, seconds, seconds) if seconds else None


def of_series(evidence: Evidence, series: Series) -> Knee | None:
    """The knee of one implementation; its range covers the passes where it was measured in several."""
    corner, launch = ridge(evidence), overhead(evidence)
    if corner is None or launch is None:
        return None
    best = knee.fit(series.seconds, corner, launch)
    if best is None or evidence.published:
        return best
    found = [best, *(one for turn in _passes(series) if (one := knee.fit(turn, corner, launch)))]
    return Knee(best.tokens, min(one.low for one in found), max(one.high for one in found))


def _passes(series: Series) -> list[dict[int, float]]:
    """The times by tokens that each pass alone gives."""
    passes = min(len(one.seconds) for one in series.points.values())
    return [{m: median(one.seconds[turn]) for m, one in series.points.items()} for turn in range(passes)]


def _blank(evidence: Evidence, slug: str, part: str, alike: Sequence[Series]) -> Finding:
    """What a finding on one linear says apart from its verdict."""
    used = [one for series in alike for one in series.points.values()]
    cases, rests_on = tuple(one.case.name for one in used), weakest(one.provenance for one in used)
    return replace(evidence.blank("tokens"), scope=part, model=slug, cases=cases, provenance=rests_on)


def _knee(evidence: Evidence, slug: str, part: str, alike: Sequence[Series]) -> Finding:
    cold = [one for one in alike if not one.maybe_hot]
    used, corner = cold or alike, ridge(evidence)
    blank = _blank(evidence, slug, part, used)
    if corner is None or overhead(evidence) is None:
        lacking = "no ceilings or no launch latency: run suites/bench_ceilings.py with it"
        return replace(blank, condition=NO_DATASHEET if evidence.published else lacking)
    found = [one for series in used if (one := of_series(evidence, series))]
    if not found:
        least = f"{knee.LEAST} points up to {knee.FLAT * corner:.0f} and from {knee.STEEP * corner:.0f} tokens on"
        return replace(blank, verdict="UNDERPOWERED", condition=f"a ridge at {corner:.0f} tokens needs {least}")
    whole = knee.merged(found)
    figures = replace(blank, value=whole.tokens, low=whole.low, high=whole.high)
    if not cold:
        return replace(figures, verdict="UNDERPOWERED", condition=overall.HOT)
    grown = [rise.tokens for series in used if (rise := knee.grown(series.seconds))]
    said = [f"{knee.GROWN} t(1) at {median(grown):.0f}"] if grown else []
    said += [f"ridge at {corner:.0f}", *_cliffs(used)]
    return _placed(replace(figures, condition="; ".join(said)))


def _cliffs(alike: Sequence[Series]) -> list[str]:
    """The steepest tile cliffs that most implementations have: one more token costs a tenth and over."""
    steps: dict[int, list[float]] = {}
    for series in alike:
        for tokens, step in knee.cliffs(series.seconds).items():
            steps.setdefault(tokens, []).append(step)
    common = {tokens: median(found) for tokens, found in steps.items() if 2 * len(found) > len(alike)}
    worst = sorted(sorted(common, key=lambda tokens: -common[tokens])[:CLIFFS_NAMED])
    return [f"cliffs {', '.join(f'{m}→{m + 1} +{common[m] - 1:.0%}' for m in worst)}"] if worst else []


def _placed(figures: Finding) -> Finding:
    """Whether the knee lies between few and many tokens."""
    low, high = figures.low or 0.0, figures.high or 0.0
    if low >= FEW and high <= MANY:
        return replace(figures, verdict="HOLDS")
    if high < FEW or low > MANY:
        return replace(figures, verdict="REFUTED")
    across = f"the range reaches across {FEW if low < FEW else MANY} tokens; {figures.condition}"
    return replace(figures, verdict="UNDERPOWERED", condition=across)


def _flat(evidence: Evidence, slug: str, part: str, alike: Sequence[Series]) -> Finding:
    cold = [one for one in alike if not one.maybe_hot]
    used = cold or alike
    blank = replace(_blank(evidence, slug, part, used), verdict="UNDERPOWERED")
    begins, ends = max(min(series.points) for series in used), min(max(series.points) for series in used)
    if begins > max(1.0, knee.FLAT * (ridge(evidence) or 0)):
        return replace(blank, condition=f"the sweep begins at {begins} tokens, where the time may grow already")
    found = [one for series in used if (one := knee.grown(series.seconds))]
    if len(found) < len(used):
        return replace(blank, condition=f"the time is still flat where the sweep ends, at {ends} tokens")
    low, high = _spread(evidence, used, found)
    figures = replace(blank, value=median(one.tokens for one in found), low=low, high=high)
    if low is None:
        return replace(figures, condition="a single framework or a single pass gives no interval")
    return _grows(figures) if cold else replace(figures, condition=overall.HOT)


def _spread(
    evidence: Evidence, used: Sequence[Series], found: Sequence[Grown]
) -> tuple[float, float] | tuple[None, None]:
    """From the last point below to the first above, over frameworks or over passes; none of a single one."""
    if evidence.published:
        several = len({series.implementation for series in used}) > 1
        return (min(one.below for one in found), max(one.above for one in found)) if several else (None, None)
    turns = [_passes(series) for series in used]
    if min(map(len, turns)) == 1:
        return None, None
    ends = [*found, *(one for passes in turns for turn in passes if (one := knee.grown(turn)))]
    return min(one.below for one in ends), max(one.above for one in ends)


def _grows(figures: Finding) -> Finding:
    """Throughput is in proportion to the tokens as far as the time is flat: never without end."""
    if figures.high is not None and figures.high <= 2:
        return replace(figures, verdict="REFUTED")
    return replace(
        figures, verdict="HOLDS_IF", condition=f"up to {figures.low:.0f} tokens; from {figures.high:.0f} on not"
    )


def _overall(evidence: Evidence, rows: Sequence[Finding]) -> Finding:
    """The middle and the range of what could be judged, its verdict open; else the first reason why nothing could."""
    judged = overall.decided(evidence, rows)
    if not judged:
        whole = overall.merged(evidence, rows[:1], "tokens")
        return replace(whole, verdict=rows[0].verdict, value=None, low=None, high=None, condition=rows[0].condition)
    corner = ridge(evidence)
    condition = overall.coverage(evidence, rows, judged) + (f"; ridge at {corner:.0f} tokens" if corner else "")
    return replace(overall.merged(evidence, judged, "tokens"), condition=condition)
