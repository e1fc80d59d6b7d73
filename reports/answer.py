"""The question that the project exists for, answered in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.finding import OVERALL, Architecture, Finding, Judged

QUESTION = "Do 125 tokens take as long as 1000?"
USUAL = "bf16"
"""The format that the headline is about where files hold several."""


@dataclass(frozen=True)
class Answer:
    """A headline of one sentence, and what qualifies it, a sentence each."""

    headline: str
    details: Sequence[str]


def answer(judged: Sequence[Judged]) -> Answer:
    """What the verdicts on dense layers say first, then what does hold, then on experts and other formats."""
    found = {dtype: _overall(judged, "tokens-125-vs-1000", "dense", dtype) for dtype in _dtypes(judged)}
    if not found:
        text = "Not measured: no file here has times of 125 and of 1000 tokens through a dense layer."
        return Answer(text, ["Run `pytest suites/`, or `python -m reports import aiconfigurator` for published ones."])
    main, *others = found
    details = [_each(found[main])]
    details += _sentences(_plateau(_overall(judged, "tokens-1-vs-125", "dense", main)))
    details += _sentences(_experts(_overall(judged, "tokens-125-vs-1000", "moe", main)))
    details += [_headline(found[dtype], dtype) for dtype in others]
    return Answer(_headline(found[main], main), details)


def _overall(judged: Sequence[Judged], slug: str, kind: Architecture, dtype: str) -> list[Finding]:
    rows = [one.finding for one in judged if one.id == slug and one.finding.scope == OVERALL]
    return [row for row in rows if row.architecture == kind and row.dtype == dtype]


def _dtypes(judged: Sequence[Judged]) -> list[str]:
    """Formats of dense layers that have a value, the usual one first."""
    rows = [one.finding for one in judged if one.id == "tokens-125-vs-1000" and one.finding.scope == OVERALL]
    dtypes = {row.dtype for row in rows if row.dtype and row.architecture == "dense"}
    return sorted(dtypes, key=lambda dtype: (dtype != USUAL, dtype))


def _headline(rows: Sequence[Finding], dtype: str) -> str:
    refuted = [row for row in rows if row.verdict == "REFUTED"]
    holding = [row for row in rows if row.verdict == "HOLDS"]
    open_ones = [row for row in rows if row not in refuted and row not in holding]
    where = "on every system here" if not (holding or open_ones) else f"on {_names(refuted)}"
    parts = []
    if refuted:
        span = _span(min(row.low or 0 for row in refuted), max(row.high or 0 for row in refuted))
        parts.append(
            f"No, refuted {where}: 1000 tokens take {span} times as long as 125 through a dense {dtype} linear"
        )
    if holding:
        parts.append(f"{'yes' if parts else 'Yes'} on {_names(holding)}, in {dtype}")
    if open_ones:
        parts.append(f"{'undecided' if parts else 'Undecided'} on {_names(open_ones)} in {dtype}")
    return "; ".join(parts) + "."


def _each(rows: Sequence[Finding]) -> str:
    """The ratio and its range on each GPU, the smallest first."""
    known = sorted((row for row in rows if row.value), key=lambda row: row.value or 0)
    said = ", ".join(f"{row.gpu} {row.value:.1f} ({_range(row)})" for row in known)
    return f"t(1000) / t(125), the middle over the linears and its range: {said}." if said else _why(rows)


def _range(row: Finding) -> str:
    return _span(row.low, row.high) if row.low and row.high else "no interval"


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
    said += [f"in part on {row.gpu} ({_range(row)})" for row in partly]
    said += [f"not on {row.gpu} ({_range(row)})" for row in refuted]
    return "; ".join(said)


def _experts(rows: Sequence[Finding]) -> str:
    """How near fine-grained experts come, and where they are within the limit."""
    known = [row for row in rows if row.value]
    if not known:
        return ""
    middle = sorted(row.value or 0 for row in known)
    said = f"fine-grained experts come close, {_span(middle[0], middle[-1])} times in the middle"
    holding = [row for row in known if row.verdict == "HOLDS"]
    partly = [row for row in known if row.verdict == "HOLDS_IF"]
    if holding:
        said += f"; 1000 tokens do take as long as 125 on {_names(holding)}"
    counts = [f"{row.gpu} {row.condition.split(' stay')[0]}" for row in partly]
    return said + (f", and are within 1.25 under conditions only: {', '.join(counts)} cases" if counts else "")


def _sentences(text: str) -> list[str]:
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def _names(rows: Sequence[Finding]) -> str:
    return ", ".join(dict.fromkeys(str(row.gpu) for row in rows))


def _why(rows: Sequence[Finding]) -> str:
    return "; ".join(dict.fromkeys(f"{row.gpu}: {row.condition}" for row in rows)) + "."


def _span(low: float, high: float) -> str:
    """Two figures, or one where they read the same."""
    texts = dict.fromkeys((f"{low:.1f}", f"{high:.1f}"))
    return "–".join(texts)
