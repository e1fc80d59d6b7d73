"""From findings at single loads to the one on a machine: where a claim on whole models holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reports import overall
from reports.evidence import Evidence
from reports.experiment.collect import Load, Setting, crowd
from reports.experiment.words import apart, at, where
from reports.finding import DECIDED, Finding, Verdict
from specs.measurement import Measurement

SINGLE = "a single pass gives no interval"
TURNS = " and take turns"
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Row:
    """A finding at one load; `what` is what ran there, `decides` whether the overall finding goes by it."""

    setting: Setting
    load: Load
    what: str
    finding: Finding
    decides: bool = True


def row(
    evidence: Evidence,
    setting: Setting,
    load: Load,
    what: str,
    verdict: Verdict,
    figure: tuple[float, Interval, str],
    used: Sequence[Measurement],
    condition: str = "",
) -> Row:
    """A row with its finding; `figure` is a value, its interval and its unit."""
    value, interval, unit = figure
    crowded = next((why for one in evidence.steps if (why := crowd(one.file, setting.ranks))), "")
    if crowded:
        verdict, condition = "UNDERPOWERED", "; ".join(filter(None, (f"{crowded}{TURNS}", condition)))
    low, high = interval or (None, None)
    alike = [one.setting for one in evidence.steps if one.setting.decode == setting.decode]
    finding = replace(
        evidence.blank(unit),
        verdict=verdict,
        value=value,
        low=low,
        high=high,
        condition=condition if interval else "; ".join(filter(None, (SINGLE, condition))),
        cases=tuple(one.case.name for one in used),
        scope=f"{what} {at(load)} {apart(setting, alike)}".rstrip(),
        model=setting.model,
    )
    return Row(setting, load, what, finding)


def within(interval: Interval, least: float, most: float) -> Verdict:
    """HOLDS where the whole interval lies within these limits, REFUTED where all of it lies outside."""
    if interval is None:
        return "UNDERPOWERED"
    low, high = interval
    if least <= low and high <= most:
        return "HOLDS"
    return "REFUTED" if high < least or low > most else "UNDERPOWERED"


def summed_up(evidence: Evidence, unit: str, rows: Sequence[Row], *, lacking: str) -> Iterator[Finding]:
    """The overall finding, then those of the rows; `lacking` says what would have to run where there are none.

    It holds or is refuted where all rows are; where they differ, or some cannot be told, it says which.
    """
    deciding = [one for one in rows if one.decides]
    if not deciding:
        yield replace(evidence.blank(unit), condition=lacking)
    else:
        whole = overall.merged(evidence, [one.finding for one in deciding], unit)
        verdict = joint([one.finding.verdict for one in deciding])
        if verdict == "UNDERPOWERED":
            whole = replace(whole, low=None, high=None)
        yield replace(whole, verdict=verdict, condition=_condition(verdict, deciding))
    yield from (one.finding for one in rows)


def joint(found: Sequence[Verdict]) -> Verdict:
    """Some that hold beside others that do not, or that cannot be told, make it conditional."""
    decided = {verdict for verdict in found if verdict in DECIDED}
    if not decided:
        return "UNDERPOWERED"
    if decided == {"REFUTED"}:
        return "REFUTED"
    return "HOLDS" if set(found) == {"HOLDS"} else "HOLDS_IF"


def _condition(verdict: Verdict, rows: Sequence[Row]) -> str:
    """Of each series of loads where it holds, and where that cannot be told."""
    series: dict[tuple[Setting, str], list[Row]] = {}
    for one in rows:
        series.setdefault((one.setting, one.what), []).append(one)
    said: dict[str, list[str]] = {}
    for (setting, what), alike in series.items():
        name = f"{what} {apart(setting, {one for one, _ in series})}".rstrip()
        said.setdefault(_of_series(verdict, alike), []).append(name)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in said.items())


def _of_series(verdict: Verdict, rows: Sequence[Row]) -> str:
    among = [one.load for one in rows]
    holding = [one.load for one in rows if one.finding.verdict == "HOLDS"]
    open_ones = [one.load for one in rows if one.finding.verdict not in DECIDED]
    said = []
    if verdict == "HOLDS_IF":
        said.append(where(holding, among) if holding else "nowhere")
    elif verdict != "UNDERPOWERED" and len(open_ones) < len(among):
        said.append(where([load for load in among if load not in open_ones], among))
    if open_ones:
        reasons = {_shared_reason(one.finding.condition) for one in rows if one.load in open_ones}
        said.append(
            reasons.pop()
            if len(reasons) == 1 and "" not in reasons
            else f"cannot be told {where(open_ones, among, 'any')}"
        )
    return "; ".join(said)


def _shared_reason(condition: str) -> str:
    """What keeps a finding open whatever was measured; empty where it is the figures."""
    return next((part for part in condition.split("; ") if part == SINGLE or part.endswith(TURNS)), "")
