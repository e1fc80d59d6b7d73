"""Claims of the form "b tokens take as long as a": t(b) / t(a) of linears, layers and models, and overall."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from reports import overall
from reports.evidence import Evidence, over_tokens, weakest
from reports.finding import Finding, Verdict
from reports.stacks import Stack, scopes
from specs import statistics
from specs.measurement import Measurement

AS_LONG = 1.25
"""Times within this factor count as the same."""
NAMED = 2
"""Linears that a condition names beside counting them."""


@dataclass(frozen=True)
class Ratio:
    """t(b) / t(a) by one implementation, and the interval that its passes give, if there are several."""

    implementation: str
    value: float
    interval: tuple[float, float] | None
    used: Sequence[Measurement]

    @classmethod
    def of(cls, stack: Stack, before: Sequence[Measurement], after: Sequence[Measurement]) -> "Ratio":
        """The ratio of the summed times of several linears; of one linear alone that of its medians."""
        if len(before) == 1:
            value = after[0].median / before[0].median
            interval = statistics.ratio_interval(before[0].seconds, after[0].seconds)
        else:
            a, b = stack.sums(before), stack.sums(after)
            value, interval = statistics.mean(b) / statistics.mean(a), statistics.ratio_interval(a, b)
        return cls(stack.series[0].implementation, value, interval, [*before, *after])


def judge(evidences: Iterable[Evidence], a: int, b: int) -> Iterator[Finding]:
    """For each GPU, format and kind of layer an overall finding, then one for each model, layer and linear."""
    for evidence in over_tokens(evidences):
        rows = [_row(evidence, slug, scope, stacks, a, b) for slug, scope, stacks in scopes(evidence)]
        yield _overall(evidence, rows)
        yield from rows


def _row(evidence: Evidence, slug: str, scope: str, stacks: Sequence[Stack], a: int, b: int) -> Finding:
    """One linear or one sum of linears, by every implementation that has it cold."""
    blank = replace(evidence.blank("ratio"), scope=scope, model=slug)
    cold = [stack for stack in stacks if not stack.maybe_hot(a, b)]
    sound = [stack for stack in cold if not stack.doubted(a, b)]
    ratios = [ratio for stack in sound or cold or stacks if (ratio := _ratio(stack, a, b))]
    if not ratios:
        return replace(blank, condition=f"no times of both {a} and {b} tokens")
    low, high = reach(ratios, published=evidence.published)
    verdict, condition = _verdict(ratios, low, high)
    if not sound:
        verdict, condition = "UNDERPOWERED", overall.ODD if cold else overall.HOT
    elif odd := [stack.series[0].implementation for stack in cold if stack not in sound]:
        condition = "; ".join(filter(None, (condition, f"without {', '.join(odd)}: slower than with more tokens")))
    return finding_of(blank, ratios, verdict, condition, (low, high))


def _ratio(stack: Stack, a: int, b: int) -> Ratio | None:
    pairs = [pair for one in stack.series if (pair := one.at(a, b))]
    if len(pairs) < len(stack.series):
        return None
    return Ratio.of(stack, [before for before, _ in pairs], [after for _, after in pairs])


def finding_of(
    blank: Finding,
    ratios: Sequence[Ratio],
    verdict: Verdict,
    condition: str,
    ends: tuple[float | None, float | None],
) -> Finding:
    """A row with the middle of what implementations gave, and all the cases that it rests on."""
    used = [one for ratio in ratios for one in ratio.used]
    return replace(
        blank,
        verdict=verdict,
        value=median(ratio.value for ratio in ratios),
        low=ends[0],
        high=ends[1],
        condition=condition,
        cases=tuple(one.case.name for one in used),
        provenance=weakest(one.provenance for one in used),
        interpolation_error=max((one.interpolation_error for one in used if one.interpolation_error), default=None),
    )


def reach(ratios: Sequence[Ratio], *, published: bool) -> tuple[float | None, float | None]:
    """Over frameworks where published, over passes where measured; nothing where there is but one of them."""
    if published:
        values = [ratio.value for ratio in ratios]
        several = len({ratio.implementation for ratio in ratios}) > 1  # two kernels of one framework are one witness
        return (min(values), max(values)) if several else (None, None)
    ends = [ratio.interval for ratio in ratios if ratio.interval]
    return (min(ends)[0], max(high for _, high in ends)) if len(ends) == len(ratios) else (None, None)


def _verdict(ratios: Sequence[Ratio], low: float | None, high: float | None) -> tuple[Verdict, str]:
    if low is None or high is None:
        return "UNDERPOWERED", "a single framework or a single pass gives no interval"
    if low > AS_LONG:
        return "REFUTED", ""
    if high <= AS_LONG:
        return "HOLDS", ""
    within = [ratio.implementation for ratio in ratios if (ratio.interval or (0, ratio.value))[1] <= AS_LONG]
    if not within:
        return "UNDERPOWERED", f"the interval reaches across {AS_LONG}"
    return "HOLDS_IF", f"by {', '.join(dict.fromkeys(within))}"


def _overall(evidence: Evidence, rows: Sequence[Finding]) -> Finding:
    judged = overall.decided(evidence, rows)
    if not judged:
        found = [row for row in rows if row.value is not None and row.condition]
        verdict: Verdict = "UNDERPOWERED" if found else "NOT_MEASURED"
        whole = overall.merged(evidence, found or rows, "ratio")
        return replace(whole, verdict=verdict, low=None, high=None, condition=(found or rows)[0].condition)
    whole = overall.merged(evidence, judged, "ratio")
    over = overall.coverage(evidence, rows, judged)
    if whole.low is not None and whole.low > AS_LONG:
        return replace(whole, verdict="REFUTED", condition=over)
    if whole.high is not None and whole.high <= AS_LONG:
        return replace(whole, verdict="HOLDS", condition=over)
    return replace(whole, verdict="HOLDS_IF", condition=_within(judged))


def _within(judged: Sequence[Finding]) -> str:
    """Where the claim holds, for an overall finding that neither holds nor fails everywhere."""
    some = [row for row in judged if row.verdict != "REFUTED"]
    everywhere = sum(1 for row in judged if row.verdict == "HOLDS")
    text = f"{len(some)} of {len(judged)} stay within {AS_LONG} in a framework, {everywhere} in all"
    ways = Counter(_dealt(row) for row in judged)
    if len(ways) > 1:  # of experts, how the tokens were dealt to them decides; of whole layers, their context
        count = Counter(map(_dealt, some))
        text += f" ({', '.join(f'{way} {count[way]} of {of}' for way, of in sorted(ways.items()))})"
    named = sorted(some, key=lambda row: row.verdict)[:NAMED]
    return text + "".join(f"; {row.model} {row.scope} {row.condition}".rstrip() for row in named)


def _dealt(row: Finding) -> str:
    """What a scope such as `experts tp1 balanced` or `layer tp1 ctx512` ends in; empty for dense linears."""
    return " ".join(row.scope.split()[2:])
