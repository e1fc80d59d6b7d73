"""A plan: every deployment at every batch, where async PP overtakes TP, what is best for each latency, the front."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from reports.files import ResultFile
from reports.plan import best, room
from reports.plan.asked import Asked
from reports.plan.computed import LAYER_LINEARS
from reports.plan.crossover import Crossover, find
from reports.plan.deployments import ways
from reports.plan.missing import MissingError
from reports.plan.parts import Parts, Variant
from reports.plan.point import Point, measured
from reports.plan.system import System, gather
from specs.errors import UserError
from specs.parallel import Deployment


@dataclass(frozen=True)
class LeftOut:
    """A deployment that cannot be planned, at one batch or, where that is None, at any.

    `lacking` says that it could be run, and that no file holds a part of it.
    """

    deployment: Deployment
    batch: int | None
    why: str
    lacking: bool = False


@dataclass(frozen=True)
class Plan:
    """What was found.

    Attributes:
        asked: the question.
        system: the GPUs.
        points: those with figures, and those that memory has no room for.
        left_out: those that cannot be cut so, or have a part that no file holds.
        crossover: where async PP over all GPUs overtakes TP over all of them; None where one of them cannot be planned.
        targets: for each latency the best point; None where nothing is as fast.
        front: what nothing beats in both latency and tokens a second.
    """

    asked: Asked
    system: System
    points: Sequence[Point]
    left_out: Sequence[LeftOut]
    crossover: Crossover | None
    targets: Sequence[best.Target]
    front: Sequence[Point]

    @property
    def batches(self) -> list[int]:
        """Those at which anything fits."""
        return sorted({one.batch for one in self.points if one.fits})

    def at(self, batch: int) -> list[Point]:
        """What fits at a batch."""
        return [one for one in self.points if one.fits and one.batch == batch]


def make(files: Sequence[ResultFile], asked: Asked) -> Plan:
    """Put together what the files hold.

    Raises:
        UserError: they are of several GPUs, or hold nothing that this can be planned by.
    """
    return of(gather(files, asked.dtype), asked)


def of(system: System, asked: Asked) -> Plan:
    """The same of a system that is already there, whose curves serve several plans.

    Raises:
        UserError: it holds nothing that this can be planned by.
    """
    parts = variants(system, asked)
    points: list[Point] = []
    left_out: list[LeftOut] = []
    for deployment in ways(asked.gpus, asked.partition):
        _add(points, left_out, parts, deployment, system, asked)
    there = [one for one in points if one.fits]
    if not there:
        raise UserError(_nothing(points, left_out, asked))
    found = find(parts, system, asked)
    return Plan(
        asked=asked,
        system=system,
        points=points,
        left_out=left_out,
        crossover=found,
        targets=best.targets(there, asked.latencies),
        front=best.front(there),
    )


def variants(system: System, asked: Asked) -> list[Parts]:
    """Whoever's linears or layers of the model were measured, with elementwise kernels counted and without.

    Raises:
        UserError: nobody's were.
    """
    names: dict[str, set[str]] = {}
    for one in (*system.by_op.get("linear", ()), *system.by_op.get("layer", ())):
        if one.case.model == asked.model and one.case.dtype == asked.dtype:
            names.setdefault(one.case.implementation, set()).add(one.case.layer or "")
    whole = [name for name, layers in names.items() if {*LAYER_LINEARS} <= layers or "layer" in layers]
    if not whole:
        there = sorted({one.case.model for one in system.by_op.get("linear", ()) if one.case.model})
        raise UserError(
            f"plan: no layer of {asked.model} in {asked.dtype} on {system.name}; its files have "
            f"{', '.join(there) or 'none'}"
        )
    return [Parts(system, asked, Variant(name, counted)) for name in sorted(whole) for counted in (True, False)]


def _add(
    points: list[Point],
    left_out: list[LeftOut],
    parts: Sequence[Parts],
    deployment: Deployment,
    system: System,
    asked: Asked,
) -> None:
    """The deployment at each batch, or why not."""
    try:
        split = deployment.split(asked.cut)
    except UserError as error:
        left_out.append(LeftOut(deployment, None, str(error)))
        return
    for batch in asked.batches:
        laid = _fewer(deployment, batch)
        if why := laid.why_not(asked.gpus, batch) or asked.fabric.why_straddles(laid.tp):
            left_out.append(LeftOut(laid, batch, why))
        elif any((one.batch, one.deployment) == (batch, laid) for one in points):
            continue  # so few sequences that another number of micro-batches came to the same
        elif why := room.why_not(laid, asked, system, batch):
            points.append(Point(batch, laid, why))
        else:
            try:
                points.append(measured(parts, laid, split, batch))
            except MissingError as error:
                left_out.append(LeftOut(laid, batch, str(error), lacking=True))


def _fewer(deployment: Deployment, batch: int) -> Deployment:
    """With as many micro-batches as there are sequences, where these are fewer."""
    most = max(1, batch // deployment.replicas)
    return replace(deployment, micro_batches=min(deployment.micro_batches, most))


def _nothing(points: Iterable[Point], left_out: Sequence[LeftOut], asked: Asked) -> str:
    """Why there is no point: the most frequent reason, and first of all one that something measured would help."""
    lacking = [one.why for one in left_out if one.lacking]
    at_a_batch = [one.why for one in left_out if one.batch is not None]
    reasons = lacking or [one.why for one in points] or at_a_batch or [one.why for one in left_out]
    ((why, _),) = Counter(reasons).most_common(1)
    return f"plan: nothing of {asked.model} can be planned over {asked.gpus} GPUs: {why}"
