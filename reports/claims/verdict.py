"""Verdict on a claim: an interval against the claim's limits, and several verdicts as one."""

from collections.abc import Iterable, Sequence
from typing import Literal

Verdict = Literal["HOLDS", "REFUTED", "HOLDS_IF", "UNDERPOWERED", "NOT_MEASURED"]
VERDICTS: tuple[Verdict, ...] = ("HOLDS", "REFUTED", "HOLDS_IF", "UNDERPOWERED", "NOT_MEASURED")
DECIDED_VERDICTS: tuple[Verdict, ...] = ("HOLDS", "REFUTED", "HOLDS_IF")
"""Verdicts that rest on enough data."""
Interval = tuple[float, float] | None
NO_INTERVAL = "a single framework or a single pass gives no interval"


def verdict_within(interval: Interval, least: float, most: float) -> Verdict:
    """Judge an interval against limits.

    HOLDS where the whole interval lies within the limits, REFUTED where all of it lies outside.
    """
    if interval is None:
        return "UNDERPOWERED"
    low, high = interval
    if least <= low and high <= most:
        return "HOLDS"
    return "REFUTED" if high < least or low > most else "UNDERPOWERED"


def verdict_by_implementation(
    interval: Interval, implementations: Iterable[tuple[str, Interval]], least: float, most: float, limit: str
) -> tuple[Verdict, str]:
    """Judge the interval over several implementations; return verdict and condition.

    HOLDS_IF where the whole straddles a limit, and some implementation's own interval lies within.

    Args:
        interval: over all implementations.
        implementations: name and own interval of each.
        least: lower limit of the claim.
        most: upper limit of the claim.
        limit: the limit as text.
    """
    if interval is None:
        return "UNDERPOWERED", NO_INTERVAL
    verdict = verdict_within(interval, least, most)
    if verdict in DECIDED_VERDICTS:
        return verdict, ""
    within = dict.fromkeys(name for name, own in implementations if verdict_within(own, least, most) == "HOLDS")
    return ("HOLDS_IF", f"by {', '.join(within)}") if within else (verdict, f"the interval reaches across {limit}")


def joint_verdict(found: Sequence[Verdict]) -> Verdict:
    """Return the verdict on several findings.

    HOLDS where every finding holds, REFUTED where some are refuted and none holds. HOLDS_IF where some hold beside
    others that do not, or that are undecided.
    """
    decided = {verdict for verdict in found if verdict in DECIDED_VERDICTS}
    if not decided:
        return "UNDERPOWERED"
    if decided == {"REFUTED"}:
        return "REFUTED"
    return "HOLDS" if set(found) == {"HOLDS"} else "HOLDS_IF"
