"""Output of plans: JSON records, report section, command, options, case sources.

The section compares TP and PP over 8 GPUs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reports import output, results
from reports.formatting import DASH, pluralize
from reports.importers.aiconfigurator import package
from reports.importers.aiconfigurator.command import plan_options, published_file
from reports.machine import distinct_gpu_name, gpu_name
from reports.output import Block, Column, Facts, Format, Table
from reports.plan import estimate, tables
from reports.plan.answer import all_reduce_names, answer_sentence, short_answer, short_answers_intro, tp_and_pp_points
from reports.plan.crossover import PlannedCrossover
from reports.plan.engine_step import EngineStep
from reports.plan.planner import (
    REPORT_QUERY,
    LatencyTarget,
    Plan,
    PlanPoint,
    UnplannableDeployment,
    plan_for_file,
    plan_for_files,
)
from reports.plan.query import LAUNCH_MODES, PlanQuery, all_deployments
from reports.plan.tables import plan_command
from reports.results import ResultFile
from specs.errors import UserError, find
from specs.gpus import match_gpu

# JSON records of a plan: SI units, None where there is no figure.


def plan_record(plan: Plan) -> dict[str, Any]:
    """JSON record: query, answer, points, crossover, targets, assumptions, formats."""
    query = plan.query
    return {
        "system": plan.profile.name,
        "files": [str(path) for path in plan.profile.paths],
        **{name: getattr(query, name) for name in ("model", "gpus", "context", "dtype", "backend", "partition")},
        "layers": query.truncated_model.layers,
        "draft_tokens": query.draft_tokens,
        "prefill_chunk": query.prefill_chunk,
        "fabric": asdict(query.interconnect),
        "provenance": "modelled" if query.interconnect.is_hypothetical else "composed",
        "answer": answer_sentence(plan),
        "points": [point_record(one) for one in plan.points],
        "crossover": crossover_record(plan.crossover),
        "targets": [_target_record(one) for one in plan.targets],
        "pareto": [_point_summary(one) for one in plan.front],
        "left_out": [_unplannable_record(one) for one in plan.unplannable],
        "assumed": assumption_records(),
        "all_reduces": all_reduce_names(plan),
        "formats": format_record(plan),
        "notes": list(plan.notes),
    }


def format_record(plan: Plan) -> dict[str, Any]:
    """JSON record of the number format of each part; of the KV cache by TP."""
    profile, query = plan.profile, plan.query
    widths = sorted({one.deployment.tp for one in plan.points if one.fits})
    decode = {tp: profile.decode_format(query.model, tp, query.context) for tp in widths}
    return {
        "weights": profile.number_format.weights,
        "activations": profile.number_format.activations,
        "lm_head": profile.head_format(query.model),
        "residual": profile.number_format.residual,
        "queries": {str(tp): one.queries for tp, one in decode.items()},
        "kv_cache": {str(tp): one.kv_cache for tp, one in decode.items()},
    }


def assumption_records() -> list[dict[str, Any]]:
    """Assumptions: name, value, range, reason."""
    return [{"name": name.lower(), **one._asdict()} for name, one in estimate.all_assumptions().items()]


def point_record(one: PlanPoint) -> dict[str, Any]:
    """JSON record of a point."""
    counted = one.breakdown
    return {
        **_deployment_record(one),
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
        "engine": engine_record(one.engine),
        "by_implementation": {name: step.seconds for name, step in (one.steps or {}).items()},
        "cases": {name: list(cases) for name, cases in counted.cases.items() if cases} if counted else {},
    }


def engine_record(one: EngineStep | None) -> dict[str, Any] | None:
    """JSON record of the step in an engine, with its terms; None where no served run of it was fitted."""
    if one is None:
        return None
    return {
        "step_seconds": one.seconds,
        "low": one.low,
        "high": one.high,
        "constants": [dict(zip(("engine", "gpu", "dtype"), group, strict=True)) for group in one.fitted.groups],
        "own_constants": one.fitted.own,
        "extrapolated": one.extrapolated,
        "terms": [term._asdict() for term in one.terms],
    }


def crossover_record(found: PlannedCrossover | None) -> dict[str, Any]:
    """JSON record of the crossover; verdict none where TP or PP cannot be planned."""
    if found is None:
        return {"batch": None, "low": None, "high": None, "verdict": "none"}
    return {
        "batch": found.batch,
        "low": found.low,
        "high": found.high,
        "verdict": found.verdict,
        "looked_at": list(found.batch_range),
        "bound_by": found.bound_by or None,
        "by_variant": [
            {"implementation": who.implementation, "elementwise": who.elementwise, "partition": way, "batch": batch}
            for (who, way), batch in found.leads_from.items()
        ],
    }


def _deployment_record(one: PlanPoint) -> dict[str, Any]:
    return {"batch": one.batch, **asdict(one.deployment)}


def _point_summary(one: PlanPoint) -> dict[str, Any]:
    """Point without its breakdown."""
    figures = {
        "step_seconds": one.seconds,
        "low": one.low,
        "high": one.high,
        "tokens_per_second": one.tokens_per_second,
    }
    return {**_deployment_record(one), **figures}


def _target_record(one: LatencyTarget) -> dict[str, Any]:
    return {
        "latency_seconds": one.latency_seconds,
        "best": _point_summary(one.best) if one.best else None,
        "tied": [_deployment_record(other) for other in one.tied],
    }


def _unplannable_record(one: UnplannableDeployment) -> dict[str, Any]:
    return {**asdict(one.deployment), "batch": one.batch, "why": one.why}


TITLE = "TP or PP, planned"
VERDICT_NAMES = {
    "crossover": "PP overtakes",
    "tp": "TP leads throughout",
    "pp": "PP leads throughout",
    "ambiguous": "open",
}


@dataclass(frozen=True)
class NamedPlan:
    """Plan of one GPU; `name` distinguishes the GPU within a report."""

    name: str
    plan: Plan

    @property
    def reproduce_command(self) -> str:
        """Command line that reproduces the plan."""
        return plan_command(self.plan)

    @property
    def sentence(self) -> str:
        """Answer of the plan in full."""
        return answer_sentence(self.plan)


@dataclass(frozen=True)
class PlanSection:
    """Plans of all GPUs that allow a plan."""

    planned: Sequence[NamedPlan]

    def __bool__(self) -> bool:
        return bool(self.planned)

    def sentences(self) -> list[str]:
        """Introduction, then the short answer of each plan."""
        if not self:
            return []
        return [
            short_answers_intro(self.planned[0].plan.query),
            *(short_answer(one.plan, one.name) for one in self.planned),
        ]

    def tables(self) -> list[Table]:
        """Tables of all GPUs: where PP overtakes, best split for each latency."""
        return [_crossover_table(self.planned), _latency_table(self.planned)] if self else []

    def blocks(self) -> list[Block]:
        """Blocks for the terminal; empty where no file allows a plan."""
        if not self:
            return []
        said = Facts(title=TITLE, rows=tuple(("", one.sentence) for one in self.planned), level=1)
        commands = tuple((one.name, one.reproduce_command) for one in self.planned)
        return [said, *self.tables(), Facts(title="every split, its parts and cases", rows=commands)]

    def data(self) -> list[dict[str, Any]]:
        """JSON records; points omit case names, which the command's own JSON has."""
        return [
            {"name": one.name, "command": one.reproduce_command, **_without_cases(plan_record(one.plan))}
            for one in self.planned
        ]


def build_section(files: Sequence[ResultFile]) -> PlanSection:
    """Plan for each file that holds the needed measurements."""
    found = [(file, plan) for file in files if (plan := plan_for_file(file, REPORT_QUERY))]
    return PlanSection([NamedPlan(distinct_gpu_name(file, files), plan) for file, plan in found])


def _without_cases(full: dict[str, Any]) -> dict[str, Any]:
    points = [{key: value for key, value in point.items() if key != "cases"} for point in full["points"]]
    return full | {"points": points}


def _crossover_table(planned: Sequence[NamedPlan]) -> Table:
    query = planned[0].plan.query
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
        groups=(tuple(_crossover_row(one) for one in planned),),
        caption=f"batch from which on PP {query.gpus} gives more tokens a second than TP {query.gpus} for good",
        notes=(
            "possibly: the first at which PP may be ahead in any variant; about: for good, in the middle one; "
            "surely: for good, in all",
            "range: over variants, caches, and what is assumed",
            tables.VARIANTS_NOTE,
            tables.FOR_GOOD_NOTE,
            tables.UNSEEN_NOTE,
        ),
    )


def _crossover_row(one: NamedPlan) -> tuple[str, ...]:
    found = one.plan.crossover
    if found is None:
        return one.name, DASH, DASH, DASH, "not both planned", DASH, next((f.why for f in one.plan.unplannable), "")
    batches = (str(batch) if batch else DASH for batch in (found.low, found.batch, found.high))
    first, last = found.batch_range
    return one.name, *batches, VERDICT_NAMES[found.verdict], f"{first}–{last}", found.bound_by or "nobody looks further"


def _latency_table(planned: Sequence[NamedPlan]) -> Table:
    tied = Column("tied with", number=False, prose=True)
    columns = Column("at most\nms"), Column("GPU", number=False), *(column for column, _ in tables.POINT_COLUMNS), tied
    return Table(
        title="best split for a latency",
        columns=columns,
        groups=tuple(_latency_rows(planned, place) for place in range(len(planned[0].plan.targets))),
        caption="among the batches asked for the most tokens a second within what a token may take",
        notes=(tables.KERNELS_NOTE, tables.BATCHES_NOTE),
    )


def _latency_rows(planned: Sequence[NamedPlan], place: int) -> tuple[tuple[str, ...], ...]:
    """Rows of one latency, one for each GPU."""
    found = [(one.name, one.plan.targets[place]) for one in planned]
    return tuple(
        (f"{1e3 * one.latency_seconds:g}", name, *tables.point_cells(one.best), tables.tied_names(one))
        for name, one in found
    )


# Command `plan`: estimated steps of a whole model, for every split, on one GPU or several.


def write_plan(
    paths: Sequence[Path],
    query: PlanQuery,
    format: Format,  # noqa: A002
    to: Path | None,
    gpus: Sequence[str] = (),
) -> None:
    """Write the plan of these files and GPUs; of several GPUs a comparison.

    Args:
        paths: result files; of one GPU where `gpus` is empty.
        query: the question.
        format: form of the report.
        to: file to write; None for standard output.
        gpus: names of GPUs. One that no file is of is imported from the installed package, with progress on stderr.

    Raises:
        UserError: a file cannot be read, a GPU cannot be imported, the query cannot be planned on any GPU, or the
            report cannot be written.
    """
    groups = _files_by_gpu(results.load_all(paths), query, gpus)
    asked = {gpu.slug for name in gpus if (gpu := match_gpu(name))}
    made, lacking = [], {}
    for files, imported in groups:
        try:
            plan = plan_for_files(files, query, imported=imported)
        except UserError as error:
            if len(groups) == 1:
                raise
            lacking[gpu_name(files[0])] = str(error)
            continue
        name = plan.profile.name
        told = [FILES_NOTE.format(name)] if name in asked and not imported else []
        made.append(replace(plan, notes=[*plan.notes, *told]))
    if not made:
        raise UserError("; ".join(f"{name}: {why}" for name, why in lacking.items()))
    if len(groups) == 1:
        output.emit(tables.build_tables(made[0]), plan_record(made[0]), format, to, paths)
    else:
        output.emit(_comparison_blocks(made, lacking), _comparison_record(made, lacking), format, to, paths)


FILES_NOTE = "measurements of {} are those of the files alone, and nothing is imported"


def _files_by_gpu(
    files: Sequence[ResultFile], query: PlanQuery, gpus: Sequence[str]
) -> list[tuple[Sequence[ResultFile], bool]]:
    """Return the files of each GPU, and True where they are imported for `gpus`, not the user's.

    Without `gpus` all files are of one GPU. Else the GPUs of the files come first, and need no import.
    """
    if not gpus:
        return [(files, False)]
    own: dict[str, list[ResultFile]] = {}
    for file in files:
        own.setdefault(gpu_name(file), []).append(file)
    found: list[tuple[Sequence[ResultFile], bool]] = [(alike, False) for alike in own.values()]
    if further := [name for name in gpus if (gpu := match_gpu(name)) is None or gpu.slug not in own]:
        installed = package.find_package()
        systems = dict.fromkeys(installed.system(name)[1].slug for name in further)
        widths = {one.tp for one in all_deployments(query.gpus, query.partition)}
        options = plan_options([query.model], widths, query.dtype)
        found += [([published_file(installed, slug, options, progress=True)], True) for slug in systems]
    return found


def _comparison_blocks(made: Sequence[Plan], lacking: Mapping[str, str]) -> list[Block]:
    """Blocks of several GPUs: a summary of all, then all blocks of each."""
    section = PlanSection([NamedPlan(plan.profile.name, plan) for plan in made])
    absent = tuple(("not planned", f"{name}: {why}") for name, why in lacking.items())
    said = tuple(("", line) for line in section.sentences())
    found: list[Block] = [Facts(title=f"{TITLE}: {pluralize(len(made), 'GPU')}", rows=(*said, *absent), level=1)]
    return [*found, *section.tables(), *(block for plan in made for block in tables.build_tables(plan))]


def _comparison_record(made: Sequence[Plan], lacking: Mapping[str, str]) -> dict[str, Any]:
    """JSON record of several GPUs: a plan of each, and those that cannot be planned."""
    return {
        "plans": [{"gpu": plan.profile.name, **plan_record(plan)} for plan in made],
        "not_planned": [{"gpu": name, "why": why} for name, why in lacking.items()],
    }


GPU_EXAMPLE = "write --gpu h200_sxm,h100_sxm"


def parse_gpus(text: str | None) -> tuple[str, ...]:
    """Distinct names of GPUs, from `h200_sxm,H100`; empty for None.

    Raises:
        UserError: a place between the commas is empty.
    """
    if text is None:
        return ()
    found = [one.strip() for one in text.split(",")]
    if not all(found):
        raise UserError(f"--gpu {text!r}: an empty place; {GPU_EXAMPLE}")
    return tuple(dict.fromkeys(found))


# Options as a user types them: launch modes and lists of numbers.


def parse_launches(first: str) -> tuple[str, ...]:
    """Launch modes allowed for all-reduces, best first.

    `graph` falls back to eager; `eager` stands alone.

    Raises:
        UserError: the launch mode is unknown.
    """
    find(dict.fromkeys(LAUNCH_MODES, ""), first, "launch")
    return LAUNCH_MODES[LAUNCH_MODES.index(first) :]


def parse_whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Distinct whole numbers in rising order, from `1,8,64`.

    Raises:
        UserError: an entry is no whole number above 0.
    """
    found = [one.strip() for one in text.split(",")]
    if odd := next((one for one in found if not one.isascii() or not one.isdigit() or not int(one)), None):
        raise UserError(f"{option} {text!r}: {odd!r} is no whole number above 0; write {option} 1,8,64")
    if not all(found):
        raise UserError(f"{option} {text!r}: an empty place; write {option} 1,8,64")
    return tuple(sorted(set(map(int, found))))


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """Distinct numbers in rising order, from `0.02,0.05`.

    Raises:
        UserError: an entry is no number above 0.
    """
    try:
        found = sorted({float(one) for one in text.split(",")})
    except ValueError:
        found = [0.0]
    if not found or not all(0 < one < float("inf") for one in found):
        raise UserError(f"{option} {text!r}: not numbers above 0; write {option} 0.02,0.05")
    return tuple(found)


# Cases behind each point: a part's set of cases appears once, under a number that points refer to.

PartSource = tuple[str, tuple[str, ...]]
"""Part, and the names of the cases that its time comes from."""


@dataclass(frozen=True)
class PointSources:
    """Points, and the sources of their parts.

    Attributes:
        sources: in the order of their numbers, which start at 1.
        points: each with its parts' numbers; assumed parts have no case and no number.
    """

    sources: Sequence[PartSource]
    points: Sequence[tuple[PlanPoint, Mapping[str, int]]]


def number_sources(points: Sequence[PlanPoint]) -> PointSources:
    """Number the sources of each point's median implementation."""
    numbers: dict[PartSource, int] = {}
    traced = []
    for one in points:
        cases = one.breakdown.cases if one.breakdown else {}
        found = {part: (part, tuple(names)) for part, names in cases.items() if names}
        traced.append((one, {part: numbers.setdefault(source, len(numbers) + 1) for part, source in found.items()}))
    return PointSources(list(numbers), traced)


def highlighted_points(plan: Plan) -> list[PlanPoint]:
    """Points that sentences mention, by batch.

    These are TP and async PP over all GPUs, the best point, and the Pareto front.
    """
    found: dict[int, PlanPoint] = {id(one): one for one in plan.front}
    for batch in plan.batches:
        alike = plan.at(batch)
        best = max(alike, key=lambda one: one.tokens_per_second)
        found |= {id(one): one for one in (best, *tp_and_pp_points(plan, alike)) if one}
    return sorted(found.values(), key=lambda one: one.batch)
