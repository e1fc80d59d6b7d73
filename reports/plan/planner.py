"""A plan: every deployment at every batch, where async PP overtakes TP, what is best for each latency, the front."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from reports import machine
from reports.plan import crossover, step
from reports.plan.cost import LAYER_LINEARS
from reports.plan.crossover import Crossover, find
from reports.plan.estimate import MissingError
from reports.plan.profile import System, gather
from reports.plan.query import Asked, ways
from reports.plan.step import Account, Parts, Step, Variant, account, compose
from reports.results import ResultFile
from specs.errors import UserError
from specs.parallel import Deployment, Split

# A deployment at a batch: what its step takes, over all variants that were measured.


@dataclass(frozen=True)
class Point:
    """One row of a plan.

    Attributes:
        batch: sequences in all.
        deployment: how they are run.
        why: why it does not fit into memory; empty where it does.
        steps: by implementation the step, elementwise kernels counted; none where it does not fit.
        low, high: over all implementations, with and without elementwise kernels, and the doubts of their parts.
        implementation: whose step stands for all: the middle one.
        account: of that.
    """

    batch: int
    deployment: Deployment
    why: str = ""
    steps: Mapping[str, Step] | None = None
    low: float = 0.0
    high: float = 0.0
    implementation: str = ""
    account: Account | None = None

    @property
    def fits(self) -> bool:
        """Whether memory holds it."""
        return not self.why

    @property
    def seconds(self) -> float:
        """Of the middle step."""
        return self.steps[self.implementation].seconds if self.steps else float("inf")

    @property
    def tokens_per_second(self) -> float:
        """Of the whole batch, a token for each sequence and step."""
        return self.batch / self.seconds


def measured(parts: Sequence[Parts], deployment: Deployment, split: Split, batch: int) -> Point:
    """The point that fits.

    Raises:
        MissingError: no variant has all its parts.
    """
    found, lacking = [], []
    for one in parts:
        try:
            found.append((one, compose(one, deployment, split, batch)))
        except MissingError as error:
            lacking.append(error)
    if not found:
        raise lacking[0]
    counted = sorted(((step.seconds, one) for one, step in found if one.variant.elementwise), key=lambda pair: pair[0])
    middle = counted[(len(counted) - 1) // 2][1]
    steps = {one.variant.implementation: step for one, step in found if one.variant.elementwise}
    name = middle.variant.implementation
    return Point(
        batch=batch,
        deployment=deployment,
        steps=steps,
        low=min(step.low for _, step in found),
        high=max(step.high for _, step in found),
        implementation=name,
        account=account(middle, deployment, split, steps[name]),
    )


# What to choose among the batches asked for: of each latency the most tokens a second, and the front of both.
#
# A batch that nobody asked for may do better, or worse than its neighbours where a tile ends.


@dataclass(frozen=True)
class Target:
    """A latency that is promised, the point with the most tokens a second within it, and those not told from it."""

    latency_seconds: float
    best: Point | None
    tied: Sequence[Point] = ()


def targets(points: Sequence[Point], latencies: Sequence[float]) -> list[Target]:
    """One for each latency. A point is within it where its figure is; tied are those whose bounds reach the best's."""
    found = []
    for latency in sorted(latencies):
        within = [one for one in points if one.seconds <= latency]
        best = max(within, key=lambda one: one.tokens_per_second, default=None)
        tied = [one for one in within if best and one is not best and _reaches(one, best)]
        found.append(Target(latency, best, tied))
    return found


def front(points: Sequence[Point]) -> list[Point]:
    """By rising latency those with more tokens a second than any faster one."""
    found: list[Point] = []
    for one in sorted(points, key=lambda point: (point.seconds, -point.tokens_per_second)):
        if not found or one.tokens_per_second > found[-1].tokens_per_second:
            found.append(one)
    return found


def _reaches(one: Point, best: Point) -> bool:
    """Whether its tokens a second at best are as many as the best's at worst."""
    return one.batch / one.low >= best.batch / best.high


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
    targets: Sequence[Target]
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
        targets=targets(there, asked.latencies),
        front=front(there),
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
        elif why := step.why_not(laid, asked, system, batch):
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


# Plans that several parts of a report share: of each file and question one, made when it is first asked for.
#
# A plan of a published GPU takes seconds, and verdicts, the chapter and the page all look at the same one.

QUESTION = Asked(model="llama-3-70b", gpus=8, context=256)
"""What every GPU is asked: a dense model of 70B over one host."""
KEPT = 128


def planned(file: ResultFile, asked: Asked = QUESTION) -> Plan | None:
    """The plan for the GPU that a file is of; None where it is of none, or does not hold what the plan needs."""
    return _planned(file, asked) if machine.known_gpu(file) else None


def system(file: ResultFile, dtype: str = QUESTION.dtype) -> System:
    """What a file holds, its curves shared by all plans.

    Raises:
        UserError: it has no linear in this format.
    """
    return _system(file, dtype)


def parts(file: ResultFile, asked: Asked) -> Sequence[Parts]:
    """Everybody's parts of the model, for what no plan holds; none where the file has none."""
    return _parts(file, asked) if machine.known_gpu(file) else ()


def crossing(file: ResultFile, asked: Asked) -> Crossover | None:
    """Where PP overtakes, without a plan around it."""
    found = parts(file, asked)
    return crossover.find(found, system(file, asked.dtype), asked) if found else None


@lru_cache(KEPT)
def _parts(file: ResultFile, asked: Asked) -> Sequence[Parts]:
    try:
        return variants(_system(file, asked.dtype), asked)
    except UserError:
        return ()


@lru_cache(KEPT)
def _planned(file: ResultFile, asked: Asked) -> Plan | None:
    try:
        return of(_system(file, asked.dtype), asked)
    except UserError:
        return None


@lru_cache(KEPT)
def _system(file: ResultFile, dtype: str) -> System:
    return gather([file], dtype)
