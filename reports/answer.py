"""Whether tokens come for free, the second question of a report, answered in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.finding import Architecture, Finding, Judged, overall_on
from reports.units import span

QUESTION = "Do 125 tokens take as long as 1000?"
USUAL = "bf16"
"""The format that the headline is about where files hold several."""
CLOSE = 2
"""Experts that take less than this many times as long come close to the claim."""


@dataclass(frozen=True)
class Answer:
    """A headline of one sentence, and what qualifies it, a sentence each."""

    headline: str
    details: Sequence[str]


def answer(judged: Sequence[Judged]) -> Answer:
    """What the verdicts on dense layers say first, then what does hold, then on experts and other formats."""
    found = {dtype: _overall(judged, "tokens-125-vs-1000", "dense", dtype) for dtype in _dtypes(judged)}
    if not found:
        text = "Not measured: no file here has times of 125 and of 1000 tokens through the linears of a dense layer."
        whole = _sentences(_whole(_overall(judged, "tokens-125-vs-1000", "whole", USUAL)))
        experts = _sentences(_experts(_overall(judged, "tokens-125-vs-1000", "moe", USUAL)))
        return Answer(text, [*whole, *experts, "Run `pytest suites/`, or `python -m reports import aiconfigurator`."])
    main, *others = found
    details = [_each(found[main])]
    details += _sentences(_whole(_overall(judged, "tokens-125-vs-1000", "whole", main)))
    details += _sentences(_plateau(_overall(judged, "tokens-1-vs-125", "dense", main)))
    details += _sentences(_experts(_overall(judged, "tokens-125-vs-1000", "moe", main)))
    details += [_headline(found[dtype], dtype) for dtype in others]
    return Answer(_headline(found[main], main), details)


def _overall(judged: Sequence[Judged], slug: str, kind: Architecture, dtype: str) -> list[Finding]:
    return [row for row in overall_on(judged, slug) if row.architecture == kind and row.dtype == dtype]


def _dtypes(judged: Sequence[Judged]) -> list[str]:
    """Formats of dense layers that have a value, the usual one first."""
    rows = overall_on(judged, "tokens-125-vs-1000")
    dtypes = {row.dtype for row in rows if row.dtype and row.architecture == "dense"}
    return sorted(dtypes, key=lambda dtype: (dtype != USUAL, dtype))


def _headline(rows: Sequence[Finding], dtype: str) -> str:
    refuted = [row for row in rows if row.verdict == "REFUTED"]
    holding = [row for row in rows if row.verdict == "HOLDS"]
    open_ones = [row for row in rows if row not in refuted and row not in holding]
    where = "on every system here" if not (holding or open_ones) else f"on {_names(refuted)}"
    parts = []
    if refuted:
        times = span(min(row.low or 0 for row in refuted), max(row.high or 0 for row in refuted))
        parts.append(
            f"No, refuted {where}: 1000 tokens take {times} times as long as 125 through a dense {dtype} linear"
        )
    if holding:
        parts.append(f"{'yes' if parts else 'Yes'} on {_names(holding)}, in {dtype}")
    if open_ones:
        parts.append(f"{'undecided' if parts else 'Undecided'} on {_names(open_ones)} in {dtype}")
    return "; ".join(parts) + "."


def _each(rows: Sequence[Finding]) -> str:
    """The ratio and its range on each GPU, the smallest first."""
    known = sorted((row for row in rows if row.value), key=lambda row: row.value or 0)
    said = ", ".join(f"{row.label} {row.value:.1f} ({_range(row)})" for row in known)
    return f"t(1000) / t(125), the middle over the linears and its range: {said}." if said else _why(rows)


def _range(row: Finding) -> str:
    return span(row.low, row.high) if row.low and row.high else "no interval"


def _whole(rows: Sequence[Finding]) -> str:
    """The same of whole layers with attention."""
    said = [f"{row.value:.1f} ({_range(row)}) times as long on {row.label}" for row in rows if row.value]
    return f"1000 tokens take a whole layer, with attention, {', '.join(said)}" if said else ""


def _exact(row: Finding) -> str:
    """The range to the digit that the limit of 1.25 has."""
    return f"{row.low:.2f}–{row.high:.2f}" if row.low and row.high else "no interval"


def _plateau(rows: Sequence[Finding]) -> str:
    """Where 125 tokens do take as long as one."""
    holding = [row for row in rows if row.verdict == "HOLDS"]
    partly = [row for row in rows if row.verdict == "HOLDS_IF"]
    refuted = [row for row in rows if row.verdict == "REFUTED"]
    said = []
    if holding:
        high = max(row.high or 0 for row in holding)
        said.append(
            f"what holds is 1 ≈ 125: 125 tokens take at most {high:.2f} times as long as one on {_names(holding)}"
        )
    elif partly or refuted:
        said.append("as for 125 tokens against one, within 1.25")
    said += [f"in part on {row.label} ({_exact(row)})" for row in partly]
    said += [f"not on {row.label} ({_exact(row)})" for row in refuted]
    return "; ".join(said)


def _experts(rows: Sequence[Finding]) -> str:
    """How near fine-grained experts come, and where they are within the limit."""
    known = [row for row in rows if row.value]
    if not known:
        return ""
    middle = sorted(row.value or 0 for row in known)
    close = "fine-grained experts come close" if middle[-1] < CLOSE else "fine-grained experts do not come close"
    said = [f"{close}: 1000 tokens take {span(middle[0], middle[-1])} times as long as 125 in the middle"]
    partly = [f"{row.label} {row.condition.split(' stay')[0]}" for row in known if row.verdict == "HOLDS_IF"]
    for verdict, words in (("HOLDS", "within 1.25 on"), ("REFUTED", "beyond 1.25 throughout on")):
        if rows_of := [row for row in known if row.verdict == verdict]:
            said.append(f"{words} {_names(rows_of)}")
    if partly:
        said.append(f"within 1.25 under conditions only on {', '.join(partly)} cases")
    return "; ".join(said)


def _sentences(text: str) -> list[str]:
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def _names(rows: Sequence[Finding]) -> str:
    return ", ".join(dict.fromkeys(str(row.label or row.gpu) for row in rows))


def _why(rows: Sequence[Finding]) -> str:
    return "; ".join(dict.fromkeys(f"{row.label}: {row.condition}" for row in rows)) + "."
