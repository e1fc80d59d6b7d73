"""Fit of the planner's constants on calibration runs, and the ranges of what they predict."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from reports.plan.serving import StepFeatures, tpot_seconds, ttft_seconds
from reports.plan.serving_constants import CONSTANT_NAMES, Group, ServingConstants, choose_constants
from reports.score.runs import CALIBRATION_ISL, CALIBRATION_MAX_OSL, ComputedRun
from specs.errors import UserError

Numbers = NDArray[np.float64]
Prediction = Callable[[Any, Any], Any]
"""Seconds from features and constants; arrays over runs give an array."""


class Prior(NamedTuple):
    """Value that a constant has without runs, and how far runs may take it.

    Attributes:
        value: value without runs.
        spread: distance from `value` at which a run's error weighs as much as the prior.
        low, high: limits.
        shared_by: places in a `Group` that runs with one value of the constant have in common.
    """

    value: float
    spread: float
    low: float
    high: float
    shared_by: tuple[int, ...]


ENGINE_AND_GPU, ENGINE_AND_FORMAT, EACH = (0, 1), (0, 2), (0, 1, 2)
TPOT_PRIORS = {
    "host": Prior(0.5e-3, 1e-3, 0.0, 6e-3, ENGINE_AND_GPU),
    "host_per_sequence": Prior(25e-6, 30e-6, 0.0, 200e-6, ENGINE_AND_GPU),
    "skew": Prior(2e-6, 4e-6, 0.0, 25e-6, ENGINE_AND_GPU),
    "prompt_launch": Prior(0.0, 100e-6, 0.0, 750e-6, ENGINE_AND_GPU),
    "prompt_factor": Prior(1.0, 0.15, 0.3, 2.5, ENGINE_AND_FORMAT),
    "linear_factor": Prior(1.0, 0.06, 0.5, 1.8, EACH),
}
TTFT_PRIORS = {
    "first": Prior(20e-3, 20e-3, 0.0, 0.5, EACH),
    "first_prompts": Prior(1.0, 1.0, 1.0, 8.0, EACH),
    "first_waiting": Prior(1.0, 0.5, 0.0, 6.0, EACH),
    "first_slot": Prior(0.0, 0.2, 0.0, 2.0, EACH),
    "stream_steps": Prior(0.0, 10.0, 0.0, 60.0, EACH),
}
WHOLE_HOST = 8
"""GPUs from which on a run is taken to stream every token.

Narrower runs of some groups deliver first tokens some 20 decode steps late, and those on a whole host do not. An
engine streams every token unless it is told otherwise, so a prediction leaves this delay out. That it is a setting of
these runs and none of the engine was seen on held-out runs too; the errors and ranges of TTFT count it as an error.
"""
FACTORED_FORMATS = ("nvfp4",)
"""Formats whose linears have a factor.

One engine's tables of nvfp4 hold the quantization of activations, and those of the others do not.
"""
NOTHING = 1e-9
"""Constant up to which the solver stopped at its limit, which is 0."""
PRIOR_WEIGHT = 0.03
"""Relative error that weighs as much as a constant one spread away from its prior."""
TPOT_SOFT, TTFT_SOFT = 0.03, 0.1
"""Relative error from which a run counts less than by its square."""
RANGE_QUANTILE = 0.9
"""Share of left-out runs that a range holds."""


class Parameter(NamedTuple):
    """One fitted number: a constant, and the group's parts that share it."""

    name: str
    shared: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """Constants of every group, and the number of fitted values."""

    constants: Mapping[Group, ServingConstants]
    values: int


def fit_constants(found: Iterable[ComputedRun]) -> Fit:
    """Fit all constants: those of TPOT first, then those of TTFT on runs within memory.

    Held-out runs, and runs without features, are left out.
    """
    used = _calibrating(found)
    unfitted = {one.run.group: ServingConstants() for one in used}
    tpot, several = _fit(used, unfitted, TPOT_PRIORS, tpot_seconds, _measured(used, "tpot_ms"), TPOT_SOFT)
    within = [one for one in used if not one.queues]
    both, more = _fit(within, tpot, TTFT_PRIORS, ttft_seconds, _measured(within, "ttft_ms"), TTFT_SOFT)
    return Fit(both, several + more)


def _calibrating(found: Iterable[ComputedRun]) -> list[ComputedRun]:
    """Runs that calibrate; those on a part of a host may stream several tokens at once."""
    return [
        replace(one, features=one.features._replace(streamed=float(one.run.tp < WHOLE_HOST)))
        for one in found
        if one.features and one.run.calibrates
    ]


def _fit(
    found: Sequence[ComputedRun],
    groups: Mapping[Group, ServingConstants],
    priors: Mapping[str, Prior],
    predict: Prediction,
    measured: Numbers,
    soft: float,
) -> tuple[dict[Group, ServingConstants], int]:
    """Fit the constants of `priors` by robust least squares on relative errors."""
    mine = [one.run.group for one in found]
    parameters = sorted({one for group in groups for name in priors if (one := _parameter(group, name, priors))})
    place: dict[Parameter | None, int] = {one: number for number, one in enumerate(parameters)}
    features = _stack([one.features for one in found if one.features])
    fixed = {name: np.array([getattr(groups[group], name) for group in mine]) for name in CONSTANT_NAMES}
    where = {name: np.array([place.get(_parameter(group, name, priors), -1) for group in mine]) for name in priors}
    prior, spread, low, high = np.array([priors[one.name][:4] for one in parameters]).T

    def errors(distances: Numbers) -> Numbers:
        values = np.append(prior + spread * distances, 0.0)
        chosen: dict[str, Any] = {name: np.where(at >= 0, values[at], fixed[name]) for name, at in where.items()}
        predicted = predict(features, ServingConstants(**(fixed | chosen)))
        return np.concatenate([predicted / measured - 1, PRIOR_WEIGHT * distances])

    bounds = (low - prior) / spread - 1e-9, (high - prior) / spread
    solved = least_squares(errors, np.zeros(len(parameters)), loss="soft_l1", f_scale=soft, bounds=bounds)
    values = dict(zip(parameters, np.clip(prior + spread * solved.x, low, high), strict=True))
    fitted = {}
    for group, base in groups.items():
        chosen = {name: float(values[one]) for name in priors if (one := _parameter(group, name, priors)) in values}
        fitted[group] = ServingConstants(**(asdict(base) | chosen))
    return fitted, len(parameters)


def _parameter(group: Group, name: str, priors: Mapping[str, Prior]) -> Parameter | None:
    """Parameter of a group's constant; None where the constant is not fitted."""
    if name == "linear_factor" and group[2] not in FACTORED_FORMATS:
        return None
    return Parameter(name, tuple(group[part] for part in priors[name].shared_by))


def _measured(found: Sequence[ComputedRun], name: str) -> Numbers:
    """Measured seconds of every run."""
    return np.array([1e-3 * getattr(one.run, name) for one in found])


def _stack(found: Sequence[StepFeatures]) -> StepFeatures:
    """Features as arrays over runs."""
    columns: Any = (np.array(column) for column in zip(*found, strict=True))
    return StepFeatures(*columns)


# Ranges: errors of runs that the constants were not fitted on, all of them calibration runs.


def relative_errors(found: Sequence[ComputedRun], constants: Mapping[Group, ServingConstants], name: str) -> Numbers:
    """Relative errors of TPOT (`tpot_ms`) or TTFT (`ttft_ms`) as it is predicted: without a wait for a stream."""
    predict = tpot_seconds if name == "tpot_ms" else ttft_seconds
    features = [(one.features._replace(streamed=0.0), constants[one.run.group]) for one in found if one.features]
    predicted = [predict(*one) for one in features]
    return np.array(predicted) / _measured(found, name) - 1


LARGE_CONCURRENCY = 64
"""Sequences from which on a load is left out as unlike the smaller ones."""
Fold = Callable[[ComputedRun], str]
"""Name of the part of the runs that is left out together."""


def width_fold(one: ComputedRun) -> str:
    """Part left out for a group's own range: a TP width."""
    return f"tp {one.run.tp}"


def load_fold(one: ComputedRun) -> str:
    """Part left out for a group's own range: loads unlike the others."""
    return "large" if one.run.load.concurrency >= LARGE_CONCURRENCY else "small"


NEAR_FOLDS: Mapping[str, tuple[Fold, ...]] = {"tpot": (width_fold, load_fold), "ttft": (width_fold,)}
"""Parts left out for a group's own range.

The wait for the first token grows with the load, so a fit without large loads says nothing about theirs.
"""


def far_fold(one: ComputedRun) -> str:
    """Part left out for the range of a group without runs: a whole group."""
    return " ".join(one.run.group)


def left_out_errors(found: Sequence[ComputedRun], name: str, fold: Fold) -> dict[Group, list[float]]:
    """Absolute relative errors of runs left out of the fit, by group.

    Args:
        found: calibration runs.
        name: `tpot_ms` or `ttft_ms`.
        fold: parts that are left out, one at a time; a group that is left out whole takes those of its engine.
    """
    errors: dict[Group, list[float]] = {}
    for part in sorted({fold(one) for one in found}):
        fitted = fit_constants(one for one in found if fold(one) != part).constants
        for one in (one for one in found if fold(one) == part):
            if name == "ttft_ms" and one.queues:
                continue
            group = one.run.group
            (error,) = relative_errors([one], {group: choose_constants(fitted, group)}, name)
            errors.setdefault(group, []).append(abs(float(error)))
    return errors


def fitted_record(found: Iterable[ComputedRun], source: str) -> dict[str, Any]:
    """Content of the file of constants: every group's, with its errors and ranges.

    Args:
        found: computed runs; only those that calibrate are used.
        source: package or CSV of the runs.

    Raises:
        UserError: no run calibrates.
    """
    used = _calibrating(found)
    if not used:
        raise UserError(
            f"score: constants are fitted on runs with isl {CALIBRATION_ISL} and osl up to {CALIBRATION_MAX_OSL}, and "
            "there are none; leave --refit out"
        )
    fit = fit_constants(used)
    near = {time: _near_errors(used, time) for time in NEAR_FOLDS}
    far = {time: left_out_errors(used, f"{time}_ms", far_fold) for time in NEAR_FOLDS}
    groups = []
    for group, constants in sorted(fit.constants.items()):
        mine = [one for one in used if one.run.group == group]
        within = [one for one in mine if not one.queues]
        groups.append(
            {
                **dict(zip(("engine", "gpu", "dtype"), group, strict=True)),
                "models": sorted({one.run.model.slug for one in mine if one.run.model}),
                "runs": len(mine),
                "most_sequences": max(one.run.load.concurrency for one in mine),
                "constants": {
                    name: float(f"{value:.4g}") if value > NOTHING else 0.0 for name, value in asdict(constants).items()
                },
                "tpot_error": _median(relative_errors(mine, fit.constants, "tpot_ms")),
                "ttft_error": _median(relative_errors(within, fit.constants, "ttft_ms")),
                **{f"{time}_range": _near_range(errors[group], errors) for time, errors in near.items()},
            }
        )
    elsewhere = {f"{time}_range": _quantile([*chain(*errors.values())]) for time, errors in far.items()}
    return {"source": source, "runs": len(used), "values": fit.values, "groups": groups, "elsewhere": elsewhere}


def _median(errors: Numbers) -> float:
    return round(float(np.median(np.abs(errors))), 4)


def _near_errors(found: Sequence[ComputedRun], time: str) -> dict[Group, list[float]]:
    """Errors of left-out runs by group, over all near folds."""
    errors: dict[Group, list[float]] = {}
    for fold in NEAR_FOLDS[time]:
        for group, some in left_out_errors(found, f"{time}_ms", fold).items():
            errors.setdefault(group, []).extend(some)
    return errors


def _near_range(own: Sequence[float], by_group: Mapping[Group, Sequence[float]]) -> float:
    """Range of a group: half the weight on its own errors, half on those of all groups, since its own are few."""
    pooled = [*chain(*by_group.values())]
    weights = [0.5 / len(own)] * len(own) + [0.5 / len(pooled)] * len(pooled)
    return _quantile([*own, *pooled], weights)


def _quantile(errors: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Error that the share `RANGE_QUANTILE` of the weight does not exceed."""
    found = np.quantile(errors, RANGE_QUANTILE, weights=weights, method="inverted_cdf")
    return round(float(found), 3)
