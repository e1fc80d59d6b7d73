"""The report's chapter on planned steps: what each GPU's files say of TP against PP over 8 of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reports import output, results
from reports.formatting import NONE
from reports.output import Block, Column, Facts, Format, Table
from reports.plan import estimate, tables
from reports.plan.answer import both, brief, lead, sentence
from reports.plan.crossover import Crossover
from reports.plan.planner import QUESTION, LeftOut, Plan, Point, Target, make, planned
from reports.plan.query import Asked
from reports.plan.tables import command
from reports.provenance import name_among
from reports.results import ResultFile
from specs.errors import UserError, find

# A plan for a machine: SI units; None where there is no figure.


def record(plan: Plan) -> dict[str, Any]:
    """Its question, answer, points, crossover, best splits, and what it assumes."""
    asked = plan.asked
    return {
        "system": plan.system.name,
        "files": [str(path) for path in plan.system.paths],
        **{name: getattr(asked, name) for name in ("model", "gpus", "context", "dtype", "backend", "partition")},
        "layers": asked.cut.layers,
        "draft_tokens": asked.draft_tokens,
        "prefill_chunk": asked.prefill_chunk,
        "fabric": asdict(asked.fabric),
        "provenance": "modelled" if asked.fabric.imagined else "composed",
        "answer": sentence(plan),
        "points": [point(one) for one in plan.points],
        "crossover": crossover(plan.crossover),
        "targets": [_target_record(one) for one in plan.targets],
        "pareto": [_chosen(one) for one in plan.front],
        "left_out": [_left_out(one) for one in plan.left_out],
        "assumed": assumptions(),
    }


def assumptions() -> list[dict[str, Any]]:
    """What no file holds: figure, range, reason."""
    return [{"name": name.lower(), **one._asdict()} for name, one in estimate.every().items()]


def point(one: Point) -> dict[str, Any]:
    """One row."""
    counted = one.account
    return {
        **_which(one),
        "step_seconds": one.seconds if one.steps else None,
        "low": one.low if one.steps else None,
        "high": one.high if one.steps else None,
        "seconds_per_token": one.seconds if one.steps else None,
        "tokens_per_second": one.tokens_per_second if one.steps else None,
        "communication_share": counted.communication_share if counted else None,
        "bubble_share": counted.bubble_share if counted else None,
        "fits": one.fits,
        "why": one.why or None,
        "provenance": dict(counted.provenance) if counted else {},
        "implementation": one.implementation or None,
        "by_implementation": {name: step.seconds for name, step in (one.steps or {}).items()},
        "cases": {name: list(cases) for name, cases in counted.cases.items() if cases} if counted else {},
    }


def crossover(found: Crossover | None) -> dict[str, Any]:
    """Where async PP overtakes TP; verdict none where one of them cannot be planned."""
    if found is None:
        return {"batch": None, "low": None, "high": None, "verdict": "none"}
    return {
        "batch": found.batch,
        "low": found.low,
        "high": found.high,
        "verdict": found.verdict,
        "looked_at": list(found.looked_at),
        "bound_by": found.bound_by or None,
        "by_variant": [
            {"implementation": who.implementation, "elementwise": who.elementwise, "partition": way, "batch": batch}
            for (who, way), batch in found.by.items()
        ],
    }


def _which(one: Point) -> dict[str, Any]:
    return {"batch": one.batch, **asdict(one.deployment)}


def _chosen(one: Point) -> dict[str, Any]:
    """A point without where its time goes."""
    figures = {
        "step_seconds": one.seconds,
        "low": one.low,
        "high": one.high,
        "tokens_per_second": one.tokens_per_second,
    }
    return {**_which(one), **figures}


def _target_record(one: Target) -> dict[str, Any]:
    return {
        "latency_seconds": one.latency_seconds,
        "best": _chosen(one.best) if one.best else None,
        "tied": [_which(other) for other in one.tied],
    }


def _left_out(one: LeftOut) -> dict[str, Any]:
    return {**asdict(one.deployment), "batch": one.batch, "why": one.why}


TITLE = "TP or PP, planned"
VERDICTS = {"crossover": "PP overtakes", "tp": "TP leads throughout", "pp": "PP leads throughout", "ambiguous": "open"}


@dataclass(frozen=True)
class Planned:
    """The plan of one file; `name` tells its GPU from the others of a report."""

    name: str
    file: ResultFile
    plan: Plan

    @property
    def again(self) -> str:
        """The command that makes it again."""
        return command([self.file.path], self.plan.asked)

    @property
    def sentence(self) -> str:
        """Its answer in full."""
        return sentence(self.plan)


@dataclass(frozen=True)
class PlanChapter:
    """The plans of all files that one can be made of."""

    planned: Sequence[Planned]

    def __bool__(self) -> bool:
        return bool(self.planned)

    def sentences(self) -> list[str]:
        """What they say in few words, and first what they share."""
        if not self:
            return []
        return [lead(self.planned[0].plan.asked), *(brief(one.plan, one.name) for one in self.planned)]

    def tables(self) -> list[Table]:
        """All GPUs side by side: where PP overtakes, and the best split for each latency."""
        return [_crossovers(self.planned), _targets(self.planned)] if self else []

    def blocks(self) -> list[Block]:
        """For the terminal; nothing where nothing can be planned."""
        if not self:
            return []
        said = Facts(title=TITLE, rows=tuple(("", one.sentence) for one in self.planned), level=1)
        commands = tuple((one.name, one.again) for one in self.planned)
        return [said, *self.tables(), Facts(title="every split, its parts and cases", rows=commands)]

    def data(self) -> list[dict[str, Any]]:
        """For a machine. Points come without the names of their cases: the command's own JSON has them."""
        return [{"name": one.name, "command": one.again, **_short(record(one.plan))} for one in self.planned]


def write(files: Sequence[ResultFile]) -> PlanChapter:
    """The plans of those files that hold what one needs."""
    found = [(file, plan) for file in files if (plan := planned(file, QUESTION))]
    return PlanChapter([Planned(name_among(file, files), file, plan) for file, plan in found])


def _short(full: dict[str, Any]) -> dict[str, Any]:
    points = [{key: value for key, value in point.items() if key != "cases"} for point in full["points"]]
    return full | {"points": points}


def _crossovers(planned: Sequence[Planned]) -> Table:
    asked = planned[0].plan.asked
    return Table(
        title="where async PP overtakes TP",
        columns=(
            Column("GPU", number=False),
            Column("possibly\nfrom"),
            Column("about"),
            Column("surely\nfrom"),
            Column("verdict", number=False),
            Column("batches looked at"),
            Column("which end with", number=False, prose=True),
        ),
        groups=(tuple(_crossover(one) for one in planned),),
        caption=f"batch from which on PP {asked.gpus} gives more tokens a second than TP {asked.gpus} for good",
        notes=(
            "possibly: the first at which PP may be ahead in any variant; about: for good, in the middle one; "
            "surely: for good, in all",
            "range: over variants, caches, and what is assumed",
            tables.VARIANTS,
            tables.FOR_GOOD,
            tables.UNSEEN,
        ),
    )


def _crossover(one: Planned) -> tuple[str, ...]:
    found = one.plan.crossover
    if found is None:
        return one.name, NONE, NONE, NONE, "not both planned", NONE, next((f.why for f in one.plan.left_out), "")
    batches = (str(batch) if batch else NONE for batch in (found.low, found.batch, found.high))
    first, last = found.looked_at
    return one.name, *batches, VERDICTS[found.verdict], f"{first}–{last}", found.bound_by or "nobody looks further"


def _targets(planned: Sequence[Planned]) -> Table:
    tied = Column("tied with", number=False, prose=True)
    columns = Column("at most\nms"), Column("GPU", number=False), *(column for column, _ in tables.SHORTLY), tied
    return Table(
        title="best split for a latency",
        columns=columns,
        groups=tuple(_target_rows(planned, place) for place in range(len(planned[0].plan.targets))),
        caption="among the batches asked for the most tokens a second within what a token may take",
        notes=(tables.OTHER_BATCHES,),
    )


def _target_rows(planned: Sequence[Planned], place: int) -> tuple[tuple[str, ...], ...]:
    """One latency, a row for each GPU."""
    found = [(one.name, one.plan.targets[place]) for one in planned]
    return tuple(
        (f"{1e3 * one.latency_seconds:g}", name, *tables.shortly(one.best), tables.tied_with(one))
        for name, one in found
    )


# `plan`: composes what files hold into steps of a whole model, for every way to cut it.


def plan(paths: Sequence[Path], asked: Asked, format: Format, to: Path | None) -> None:  # noqa: A002
    """Write the plan.

    Raises:
        UserError: a file cannot be read, it cannot be planned, or the report cannot be written.
    """
    made = make(results.load_all(paths), asked)
    data = record(made) if format is Format.JSON else None
    output.emit(tables.draw_up(made), data, format, to, paths)


# Lists of numbers as a user types them.

LAUNCHES = ("graph", "eager")


def launches(first: str) -> tuple[str, ...]:
    """How all-reduces may have been launched: in a graph where that was timed, or eager alone.

    Raises:
        UserError: it is neither.
    """
    find(dict.fromkeys(LAUNCHES, ""), first, "launch")
    return LAUNCHES[LAUNCHES.index(first) :]


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Rising and each once, from `1,8,64`.

    Raises:
        UserError: one is no whole number above 0.
    """
    found = [one.strip() for one in text.split(",")]
    if odd := next((one for one in found if not one.isascii() or not one.isdigit() or not int(one)), None):
        raise UserError(f"{option} {text!r}: {odd!r} is no whole number above 0; write {option} 1,8,64")
    if not all(found):
        raise UserError(f"{option} {text!r}: an empty place; write {option} 1,8,64")
    return tuple(sorted(set(map(int, found))))


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Rising and each once, from `0.02,0.05`.

    Raises:
        UserError: one is no number above 0.
    """
    try:
        found = sorted({float(one) for one in text.split(",")})
    except ValueError:
        found = [0.0]
    if not found or not all(0 < one < float("inf") for one in found):
        raise UserError(f"{option} {text!r}: not numbers above 0; write {option} 0.02,0.05")
    return tuple(found)


# Which cases stand behind which points: each part's set of cases once, with a number that points refer to.

Source = tuple[str, tuple[str, ...]]
"""A part, and the names of the cases that its time comes from."""


@dataclass(frozen=True)
class Traces:
    """Points, and the sources of their parts.

    Attributes:
        sources: in the order of their numbers, which start at 1.
        points: each with its parts' numbers; parts without a case are assumed and have none.
    """

    sources: Sequence[Source]
    points: Sequence[tuple[Point, Mapping[str, int]]]


def of(points: Sequence[Point]) -> Traces:
    """Of the middle implementation of each."""
    numbers: dict[Source, int] = {}
    traced = []
    for one in points:
        cases = one.account.cases if one.account else {}
        found = {part: (part, tuple(names)) for part, names in cases.items() if names}
        traced.append((one, {part: numbers.setdefault(source, len(numbers) + 1) for part, source in found.items()}))
    return Traces(list(numbers), traced)


def telling(plan: Plan) -> list[Point]:
    """The points that a plan's statements are about, by batch: TP and async PP over all GPUs, the best, the front."""
    found: dict[int, Point] = {id(one): one for one in plan.front}
    for batch in plan.batches:
        alike = plan.at(batch)
        best = max(alike, key=lambda one: one.tokens_per_second)
        found |= {id(one): one for one in (best, *both(plan, alike)) if one}
    return sorted(found.values(), key=lambda one: one.batch)
