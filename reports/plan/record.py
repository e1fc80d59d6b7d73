"""A plan for a machine: SI units; None where there is no figure."""

from dataclasses import asdict
from typing import Any

from reports.plan import assumed
from reports.plan.answer import sentence
from reports.plan.best import Target
from reports.plan.crossover import Crossover
from reports.plan.plan import LeftOut, Plan
from reports.plan.point import Point


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
        "targets": [_target(one) for one in plan.targets],
        "pareto": [_chosen(one) for one in plan.front],
        "left_out": [_left_out(one) for one in plan.left_out],
        "assumed": assumptions(),
    }


def assumptions() -> list[dict[str, Any]]:
    """What no file holds: figure, range, reason."""
    return [{"name": name.lower(), **one._asdict()} for name, one in assumed.every().items()]


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


def _target(one: Target) -> dict[str, Any]:
    return {
        "latency_seconds": one.latency_seconds,
        "best": _chosen(one.best) if one.best else None,
        "tied": [_which(other) for other in one.tied],
    }


def _left_out(one: LeftOut) -> dict[str, Any]:
    return {**asdict(one.deployment), "batch": one.batch, "why": one.why}
