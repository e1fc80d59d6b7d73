"""The one or two figures of each question that a file answers."""

from collections.abc import Iterator, Sequence
from statistics import median

from reports import ceilings, header, units
from reports.communication import point
from reports.communication.point import Point
from reports.communication.reference import NOTHING
from reports.experiment import chapter as experiments
from reports.experiment.collect import belongs
from reports.figures import Figures
from reports.files import ResultFile
from reports.questions import by_question, is_launch, title
from reports.units import counted, percent
from specs import layer
from specs.measurement import Measurement

Headline = tuple[str, str]
"""A question and what the file says to it."""


def headlines(file: ResultFile, figures: Sequence[Figures]) -> list[Headline]:
    """A line for each question, TP against PP first; of others' figures it says that they are published."""
    steps = [text for ran in experiments.write([file]).ran for text in ran.sentences()]
    others = [one for one in figures if not belongs(one.measurement)]
    tables = by_question(others, lambda one: one.measurement.case)
    answered = [(name(question, members), _said(file, question, members)) for question, members in tables]
    known = [*((experiments.TITLE, text) for text in steps), *((question, text) for question, text in answered if text)]
    return [(question, f"published: {text}") for question, text in known] if file.published else known


def name(question: str, figures: Sequence[Figures]) -> str:
    """What a question is called in a list: launches have a table of their own among the ceilings."""
    return "launch" if is_launch(figures[0].measurement.case) else title(question).partition(":")[0]


def _said(file: ResultFile, question: str, figures: Sequence[Figures]) -> str:
    if is_launch(figures[0].measurement.case):
        return f"{units.one(units.SECONDS, min(one.measurement.median for one in figures))} a launch at the least"
    if question == "ceilings":
        doubts = [f"{name} {', '.join(words)}" for name, words in ceilings.in_doubt(file).items()]
        return header.peaks(ceilings.measured(file)) + (f" ({'; '.join(doubts)})" if doubts else "")
    if question == "layer":
        return _layers(figures)
    if question == layer.QUESTION:
        return f"{counted(len(figures), 'case')}, {_times([one.measurement for one in figures])}"
    if point.between_ranks(figures[0].measurement.case):
        return "; ".join(_messages(point.points(file, figures, NOTHING)))
    return ", ".join(_streams(question, figures))


def _streams(question: str, figures: Sequence[Figures]) -> Iterator[str]:
    """Linears and attention: how near to the floor, how fast memory was read, and how time grows with tokens."""
    yield counted(len(figures), "case")
    found = {
        "floor": [one.floor_share for one in figures if one.floor_share],
        "the datasheet's floor": [one.datasheet_share for one in figures if one.datasheet_share],
    }
    if of := next((name for name, reached in found.items() if reached), None):
        reached = found[of]
        middle = f" ({percent(median(reached))} in the middle)" if len(reached) > 1 else ""
        yield f"{_range([percent(min(reached)), percent(max(reached))])} of {of}{middle}"
    reading = [one.bytes_per_second or 0 for one in figures if one.bound == "memory"]
    if reading:
        yield f"reading at up to {units.one(units.BYTES_PER_SECOND, max(reading))}"
    if question == "sweep" and (growth := _growth(figures)):
        yield growth


def _growth(figures: Sequence[Figures]) -> str:
    """How many times as long the most tokens take as the fewest, in the middle over series."""
    series: dict[object, dict[int, float]] = {}
    for one in figures:
        case = one.measurement.case
        key = case.model, case.layer, case.tp, case.dtype, case.implementation, case.cache, case.launch
        series.setdefault(key, {})[case.tokens or 0] = one.measurement.median
    ends = {(min(times), max(times)) for times in series.values()}
    if len(ends) != 1 or min(ends)[0] == min(ends)[1]:
        return ""
    few, many = ends.pop()
    ratio = median(times[many] / times[few] for times in series.values())
    return f"{counted(many, 'token')} take {units.digits(ratio)} times as long as {few}"


def _layers(figures: Sequence[Figures]) -> str:
    """Whole layers' times, by tokens."""
    whole = [one.measurement for one in figures if one.measurement.case.layer == layer.WHOLE]
    by: dict[tuple[str, str], list[Measurement]] = {}
    for one in sorted(whole, key=lambda one: one.case.tokens or 0):
        by.setdefault((one.case.implementation, one.case.launch), []).append(one)
    said = [
        f"{implementation}, {launch}: "
        + ", ".join(f"{_time(one)} at {counted(one.case.tokens or 0, 'token')}" for one in members)
        for (implementation, launch), members in by.items()
    ]
    return "; ".join(said) or counted(len(figures), "case")


def _messages(points: Sequence[Point]) -> Iterator[str]:
    """Of each operation the shortest time, and the highest bus bandwidth."""
    by: dict[str, list[Point]] = {}
    for one in points:
        by.setdefault(one.case.op, []).append(one)
    for op, members in by.items():
        bandwidths = [one.busbw for one in members if one.busbw]
        most = f", busbw up to {units.one(units.BYTES_PER_SECOND, max(bandwidths))}" if bandwidths else ""
        yield f"{op} from {units.one(units.SECONDS, min(one.measurement.median for one in members))}{most}"


def _times(measured: Sequence[Measurement]) -> str:
    ends = sorted(one.median for one in measured)
    return _range([units.one(units.SECONDS, ends[0]), units.one(units.SECONDS, ends[-1])])


def _time(one: Measurement) -> str:
    return units.one(units.SECONDS, one.median)


def _range(ends: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys(ends))
