"""`score`: the planner's predictions beside served runs, by engine, GPU, model and format."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from reports import formatting, output
from reports.formatting import DASH
from reports.importers.aiconfigurator.package import find_package
from reports.output import Block, Column, Facts, Format, Row, Table
from reports.plan import serving_constants
from reports.plan.serving import tpot_seconds, ttft_seconds
from reports.plan.serving_constants import NO_CONSTANTS, Group, find_constants
from reports.score.fit import TPOT_SOFT, fitted_record
from reports.score.runs import SAMPLE, ComputedRun, Run, compute_runs, positive_time, read_runs, require_columns
from specs.errors import GateError, UserError

FEW_RUNS = 30
"""Runs below which a group is marked."""
MOST_REASONS = 12
RIVAL_COLUMNS = ("id", "aic_tpot_ms", "aic_ttft_ms")
MOST_RIVAL_CONSTANTS = 4
"""Values fitted for the rival in each group: a factor, a constant, and terms in sequences and in prompts a step.

Fits of the first one, two, three and four stand in the table. The planner has 70 values for TPOT in 11 groups.
"""


class ScoreGateError(GateError):
    """Error of held-out runs above the limit of `--fail-above`."""


@dataclass(frozen=True)
class ScoredRun:
    """A run with its predictions in ms; None where it was refused.

    Attributes:
        run: the run.
        tpot: predicted TPOT, with its range.
        ttft: predicted TTFT, with its range.
        refused: reason without a prediction.
        queues: True where memory holds fewer sequences than the run has.
        own: True where constants were fitted on runs of this engine, GPU and format.
    """

    run: Run
    tpot: tuple[float, float, float] | None = None
    ttft: tuple[float, float, float] | None = None
    refused: str = ""
    queues: bool = False
    own: bool = False


class Errors(NamedTuple):
    """Errors of a group of runs; None without any.

    Attributes:
        runs: runs with a prediction.
        median: median absolute relative error.
        mean: mean absolute relative error.
        bias: median relative error.
        within_10, within_20, within_30: share of runs within 10 %, 20 % and 30 %.
        in_range: share of runs inside the stated range; None where there is none.
        width: median half-width of the range; None where there is none.
    """

    runs: int
    median: float
    mean: float
    bias: float
    within_10: float
    within_20: float
    within_30: float
    in_range: float | None = None
    width: float | None = None


def score_runs(found: Sequence[ComputedRun]) -> list[ScoredRun]:
    """Predict TPOT and TTFT of every run that was computed."""
    return [_score(one) for one in found]


def _score(one: ComputedRun) -> ScoredRun:
    if one.features is None:
        return ScoredRun(one.run, refused=one.refused)
    fitted = find_constants(*one.run.group, one.run.model.slug if one.run.model else "")
    tpot, ttft = (1e3 * predict(one.features, fitted.constants) for predict in (tpot_seconds, ttft_seconds))
    return ScoredRun(
        one.run,
        tpot=(tpot, tpot * (1 - fitted.tpot_range), tpot * (1 + fitted.tpot_range)),
        ttft=(ttft, max(0.0, ttft * (1 - fitted.ttft_range)), ttft * (1 + fitted.ttft_range)),
        queues=one.queues,
        own=fitted.own,
    )


def errors_of(pairs: Sequence[tuple[float, float]], ranges: Sequence[tuple[float, float]] = ()) -> Errors | None:
    """Errors of (measured, predicted) pairs, with the share that lies in its range."""
    if not pairs:
        return None
    measured, predicted = np.array(pairs).T
    off = predicted / measured - 1
    inside = width = None
    if ranges:
        low, high = np.array(ranges).T
        inside = float(np.mean((low <= measured) & (measured <= high)))
        width = float(np.median((high - low) / 2 / predicted))
    size = np.abs(off)
    within_10, within_20, within_30 = (float(np.mean(size <= limit)) for limit in (0.1, 0.2, 0.3))
    median, mean, bias = float(np.median(size)), float(np.mean(size)), float(np.median(off))
    return Errors(len(pairs), median, mean, bias, within_10, within_20, within_30, inside, width)


def tpot_errors(found: Iterable[ScoredRun]) -> Errors | None:
    """Errors of predicted TPOT."""
    there = [(one.run.tpot_ms, one.tpot) for one in found if one.tpot and one.run.tpot_ms]
    return errors_of([(measured, one[0]) for measured, one in there], [one[1:] for _, one in there])


def ttft_errors(found: Iterable[ScoredRun]) -> Errors | None:
    """Errors of predicted TTFT of runs that memory holds."""
    there = [(one.run.ttft_ms, one.ttft) for one in found if one.ttft and one.run.ttft_ms and not one.queues]
    return errors_of([(measured, one[0]) for measured, one in there], [one[1:] for _, one in there])


# Ranking: whether the planner chooses the deployment that served runs show to be the fastest.

TOTAL_GPUS = 8
CLEAR_DIFFERENCE = 0.05
"""Relative difference of measured times above which a pair counts."""


@dataclass(frozen=True)
class Ranking:
    """Result of ranking 8 GPUs as 1 x TP 8, 2 x TP 4, 4 x TP 2 or 8 x TP 1 at equal total concurrency.

    Attributes:
        loads: loads with two deployments or more.
        pairs: pairs of deployments that differ by more than 5 %.
        right: pairs that the planner orders as measured.
        losses: measured TPOT of the planned best over that of the measured best, minus 1, by load.
    """

    loads: int
    pairs: int
    right: int
    losses: Sequence[float]

    @property
    def share_right(self) -> float:
        """Share of pairs that are ordered right."""
        return self.right / self.pairs if self.pairs else float("nan")

    def loss_quantile(self, quantile: float) -> float:
        """Loss that this share of loads does not exceed."""
        return float(np.quantile(self.losses, quantile)) if self.losses else float("nan")


def rank_deployments(found: Iterable[ScoredRun]) -> Ranking:
    """Rank the deployments of each load by predicted TPOT, and compare with the measured order."""
    pairs = right = 0
    losses = []
    loads = [alike for alike in _loads(found).values() if len(alike) > 1]
    for alike in loads:
        for (measured, predicted), (other, planned) in combinations(alike, 2):
            if abs(measured / other - 1) > CLEAR_DIFFERENCE:
                pairs += 1
                right += (measured < other) == (predicted < planned)
        chosen = min(alike, key=lambda pair: pair[1])[0]
        losses.append(chosen / min(measured for measured, _ in alike) - 1)
    return Ranking(len(loads), pairs, right, losses)


def _loads(found: Iterable[ScoredRun]) -> Mapping[tuple[object, ...], list[tuple[float, float]]]:
    """Measured and predicted TPOT of each deployment, by load; runs of one deployment are averaged."""
    loads: dict[tuple[object, ...], dict[int, list[tuple[float, float]]]] = {}
    for one in found:
        run = one.run
        if one.tpot and run.tpot_ms and TOTAL_GPUS % run.tp == 0:
            total = run.load.concurrency * TOTAL_GPUS // run.tp
            key = run.engine, run.gpu, run.model_path, run.dtype, run.load.isl, run.load.osl, total
            loads.setdefault(key, {}).setdefault(run.tp, []).append((run.tpot_ms, one.tpot[0]))
    return {key: [_mean(runs) for runs in widths.values()] for key, widths in loads.items()}


def _mean(runs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    measured, predicted = zip(*runs, strict=True)
    return float(np.mean(measured)), float(np.mean(predicted))


# A rival's predictions of the same runs, as they are and with as many fitted constants.

RivalTimes = Mapping[str, tuple[float, float]]
"""Predicted TPOT and TTFT in ms by run id."""


def read_rival(path: Path) -> RivalTimes:
    """Read a rival's predictions.

    Raises:
        UserError: the file cannot be read, lacks columns or rows, has an id twice, or holds other than times.
    """
    times: dict[str, tuple[float, float]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            require_columns(reader, RIVAL_COLUMNS, path)
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if row["id"] in times:
                    raise UserError(f"{where}: id {row['id']} stands in it twice; give each run one prediction")
                times[row["id"]] = _rival_time(row, "aic_tpot_ms", where), _rival_time(row, "aic_ttft_ms", where)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as predictions ({error}); give {', '.join(RIVAL_COLUMNS)}") from error
    if not times:
        raise UserError(f"{path}: holds no prediction; give a CSV with one row for each run")
    return times


def _rival_time(row: Mapping[str, str | None], name: str, where: str) -> float:
    text = row[name] or ""
    if (found := positive_time(text)) is None:
        raise UserError(
            f"{where}: {name} {text or 'absent'}: no finite time above 0; leave out runs without a prediction"
        )
    return found


def rival_tpot_errors(found: Iterable[ScoredRun], rival: RivalTimes) -> Errors | None:
    """Errors of the rival's TPOT on the runs that it and the planner have."""
    there = [one for one in found if one.tpot and one.run.id in rival]
    return errors_of([(one.run.tpot_ms, rival[one.run.id][0]) for one in there if one.run.tpot_ms])


def rival_ttft_errors(found: Iterable[ScoredRun], rival: RivalTimes) -> Errors | None:
    """Errors of the rival's TTFT on the runs that it and the planner have and that memory holds."""
    there = [one for one in found if one.ttft and one.run.id in rival and not one.queues]
    return errors_of([(one.run.ttft_ms, rival[one.run.id][1]) for one in there if one.run.ttft_ms])


def calibrate_rival(found: Sequence[ScoredRun], rival: RivalTimes, count: int) -> RivalTimes:
    """Fit `count` constants of the rival's TPOT in each group on its calibration runs; TTFT stays.

    A group without calibration runs keeps the rival's own times, which are nearer than another group's constants.
    """
    groups: dict[Group, list[ScoredRun]] = {}
    for one in found:
        if one.tpot and one.run.id in rival:
            groups.setdefault(one.run.group, []).append(one)
    calibrated = dict(rival)
    for alike in groups.values():
        used = [one for one in alike if one.run.calibrates]
        if len(used) > MOST_RIVAL_CONSTANTS:
            times = zip(alike, _predict_rival(alike, used, rival, count), strict=True)
            calibrated |= {one.run.id: (float(tpot), rival[one.run.id][1]) for one, tpot in times}
    return calibrated


def _predict_rival(found: Sequence[ScoredRun], used: Sequence[ScoredRun], rival: RivalTimes, count: int) -> Any:
    """TPOT in ms by the rival's first terms, fitted on `used`."""
    terms, measured = _rival_terms(used, rival, count), np.array([one.run.tpot_ms for one in used])

    def errors(values: Any) -> Any:
        return terms @ values / measured - 1

    start = np.array([1.0, *[0.0] * (count - 1)])
    return _rival_terms(found, rival, count) @ least_squares(errors, start, loss="soft_l1", f_scale=TPOT_SOFT).x


def _rival_terms(found: Sequence[ScoredRun], rival: RivalTimes, count: int) -> Any:
    """First `count` terms of the rival's fit, a row for each run."""
    loads = [one.run.load for one in found]
    sequences = [one.concurrency for one in loads]
    prompts = [one.concurrency * one.isl / one.osl / 1024 for one in loads]
    return np.array([[rival[one.run.id][0] for one in found], [1.0] * len(loads), sequences, prompts][:count]).T


# Tables, JSON and the verb.


def score(
    path: Path | None,
    rival: Path | None,
    format: Format,  # noqa: A002
    to: Path | None,
    *,
    fail_above: float | None = None,
    refit: bool = False,
) -> None:
    """Score the planner on the runs of a CSV, or of the installed sample.

    Args:
        path: CSV of runs; None for the package's sample.
        rival: CSV with another planner's predictions of the same runs.
        format: form of the report.
        to: file to write; None for standard output.
        fail_above: largest median error of held-out TPOT.
        refit: fit the constants on the calibration runs first, and write them.

    Raises:
        UserError: a file cannot be read, or no run can be predicted.
        ScoreGateError: the error is above `fail_above`.
    """
    runs = read_runs(path, refit=refit)
    times = read_rival(rival) if rival else None
    if times is not None and not any(one.id in times for one in runs):
        raise UserError(f"{rival}: none of its {len(times)} ids is that of a run; take them from the column id")
    computed = compute_runs(runs)
    if refit:
        _refit(computed, str(path or f"{find_package().name}, {SAMPLE}"))
    scored = score_runs(computed)
    if not any(one.tpot for one in scored):
        raise UserError(f"score: none of {len(runs)} runs can be predicted: {scored[0].refused}")
    page = [_summary_facts(scored), *_tables(scored, computed, times)]
    page += [_refusal_table(scored)] if any(one.refused for one in scored) else []
    data = {"runs": [_record(one) for one in scored], "summary": _summary_records(scored)}
    data |= {"rival": _rival_records(scored, times)} if times is not None else {}
    output.emit(page, data, format, to, [one for one in (path, rival) if one])
    held = tpot_errors(one for one in scored if not one.run.calibrates)
    if fail_above is not None and (held is None or held.median > fail_above):
        said = f"{held.median:.1%}" if held else "unknown: no held-out run was predicted"
        raise ScoreGateError(f"score: median TPOT error of held-out runs is {said}, above {fail_above:.1%}")


def _refit(computed: Sequence[ComputedRun], source: str) -> None:
    """Write the file of constants anew.

    Raises:
        UserError: no run calibrates.
    """
    output.write_file(serving_constants.FITTED_PATH, json.dumps(fitted_record(computed, source), indent=1) + "\n")
    serving_constants.read_fitted.cache_clear()


def _record(one: ScoredRun) -> dict[str, Any]:
    tpot, low, high = one.tpot or (None, None, None)
    return {
        "id": one.run.id,
        "used_for": one.run.used_for,
        "measured_tpot_ms": one.run.tpot_ms,
        "predicted_tpot_ms": tpot,
        "tpot_low_ms": low,
        "tpot_high_ms": high,
        "measured_ttft_ms": one.run.ttft_ms,
        "predicted_ttft_ms": one.ttft[0] if one.ttft else None,
        "ttft_low_ms": one.ttft[1] if one.ttft else None,
        "ttft_high_ms": one.ttft[2] if one.ttft else None,
        "queues": one.queues if one.tpot else None,
        "refused": one.refused or None,
    }


def _summary_records(scored: Sequence[ScoredRun]) -> list[dict[str, Any]]:
    rows = []
    for name, found in (("all", list(scored)), *((" ".join(key), alike) for key, alike in _groups(scored).items())):
        for used_for in ("calibration", "held-out"):
            there = [one for one in found if one.run.used_for == used_for]
            tpot, ttft = tpot_errors(there), ttft_errors(there)
            rows.append(
                {
                    "group": name,
                    "used_for": used_for,
                    "runs": len(there),
                    "refused": sum(1 for one in there if one.refused),
                    "tpot": tpot._asdict() if tpot else None,
                    "ttft": ttft._asdict() if ttft else None,
                }
            )
    return rows


def _rival_records(scored: Sequence[ScoredRun], rival: RivalTimes) -> list[dict[str, Any]]:
    """JSON records of the rival's errors on all runs that both predict, by group."""
    by_group = {" ".join(key): alike for key, alike in _groups(scored).items()}
    groups = {"all": [one for one in scored if one.tpot], **by_group}
    rows = []
    for name, alike in groups.items():
        tpot, ttft = rival_tpot_errors(alike, rival), rival_ttft_errors(alike, rival)
        rows.append({"group": name, "tpot": tpot._asdict() if tpot else None, "ttft": ttft._asdict() if ttft else None})
    return rows


def _groups(scored: Iterable[ScoredRun]) -> dict[tuple[str, str, str, str], list[ScoredRun]]:
    """Runs by engine, GPU, model and format; those of unknown models or formats are in no group."""
    groups: dict[tuple[str, str, str, str], list[ScoredRun]] = {}
    for one in scored:
        if one.run.model and one.run.dtype:
            groups.setdefault((one.run.engine, one.run.gpu, one.run.model.slug, one.run.dtype), []).append(one)
    return dict(sorted(groups.items()))


def _summary_facts(scored: Sequence[ScoredRun]) -> Facts:
    answered = [one for one in scored if one.tpot]
    held = [one for one in answered if not one.run.calibrates]
    tpot, ttft = tpot_errors(held), ttft_errors(held)
    ranking = rank_deployments(scored)
    rows = [("", _sentence(tpot, len(answered), len(scored)))]
    if ttft:
        errors = f"median error {ttft.median:.1%}, {ttft.within_30:.0%} within 30 %"
        rows.append(("TTFT", f"{ttft.runs} held-out runs within memory: {errors}"))
    if ranking.pairs:
        rows.append(("ranking", _ranking_text(ranking)))
    fitted = serving_constants.read_fitted()
    rows.append(
        (
            "constants",
            f"{fitted['values']} values fitted on {fitted['runs']} runs with isl 1024 and osl up to 1024, of "
            f"{fitted['source']}; without them most of the gain is gone",
        )
    )
    return Facts(title="planner against served runs", rows=tuple(rows), level=1)


def _sentence(held: Errors | None, answered: int, total: int) -> str:
    if held is None:
        return f"{answered} of {total} runs predicted, none of them held out."
    inside = f"; {held.in_range:.0%} lie in the stated range" if held.in_range is not None else ""
    return (
        f"TPOT of {held.runs} held-out runs: median error {held.median:.1%}, mean {held.mean:.1%}; "
        f"{held.within_10:.0%} within 10 %, {held.within_20:.0%} within 20 %{inside}. "
        f"{answered} of {total} runs predicted."
    )


def _ranking_text(found: Ranking) -> str:
    median, high, worst = (100 * found.loss_quantile(quantile) for quantile in (0.5, 0.95, 1.0))
    return (
        f"{found.share_right:.0%} of {found.pairs} pairs of deployments that differ by over 5 % ordered right, over "
        f"{found.loads} loads, those of calibration runs included; TPOT lost by following the plan: "
        f"median {median:.1f} %, 95th percentile {high:.1f} %, worst {worst:.1f} %"
    )


ERROR_COLUMNS = (
    *(Column("runs"), Column("MdAPE\n%"), Column("MAPE\n%"), Column("bias\n%")),
    *(Column("within\n10 %"), Column("within\n20 %"), Column("in\nrange"), Column("range\n±%")),
)


def _cells(one: Errors | None) -> Row:
    if one is None:
        return (DASH,) * len(ERROR_COLUMNS)
    few = "*" if one.runs < FEW_RUNS else ""
    shares = [DASH if share is None else f"{share:.0%}" for share in (one.within_10, one.within_20, one.in_range)]
    width = DASH if one.width is None else f"{100 * one.width:.1f}"
    errors = f"{100 * one.median:.1f}", f"{100 * one.mean:.1f}", f"{100 * one.bias:+.1f}"
    return (f"{one.runs}{few}", *errors, *shares, width)


def _tables(scored: Sequence[ScoredRun], computed: Sequence[ComputedRun], rival: RivalTimes | None) -> list[Block]:
    by_group = _groups(scored)
    found: list[Block] = [_planner_table(scored, computed, rival)]
    for title, errors in (("TPOT", tpot_errors), ("TTFT, runs within memory", ttft_errors)):
        tables = (_group_table(f"{title}, {use}", by_group, errors, use) for use in ("held-out", "calibration"))
        found += [one for one in tables if one.rows]
    return [*found, *_rival_tables(by_group, rival)] if rival is not None else found


def _group_table(
    title: str,
    groups: Mapping[tuple[str, str, str, str], Sequence[ScoredRun]],
    errors: Callable[[Iterable[ScoredRun]], Errors | None],
    used_for: str,
) -> Table:
    rows = []
    for key, alike in groups.items():
        there = [one for one in alike if one.run.used_for == used_for]
        refused = sum(1 for one in there if one.refused)
        if there:
            own = all(one.own or one.refused for one in there)
            rows.append((*key, "" if own else "another's", str(refused or DASH), *_cells(errors(there))))
    return _errors_by_group(title, rows, ("constants", "refused"))


def _errors_by_group(title: str, rows: Sequence[Row], further: Sequence[str] = ()) -> Table:
    names = [Column(name, number=False) for name in ("engine", "GPU", "model", "format", *further)]
    return Table(
        title=title,
        columns=(*names, *ERROR_COLUMNS),
        groups=(tuple(rows),),
        notes=(f"*: fewer than {FEW_RUNS} runs",),
    )


def _rival_tables(groups: Mapping[tuple[str, str, str, str], Sequence[ScoredRun]], rival: RivalTimes) -> list[Table]:
    """Errors of the rival on all runs, of which it was fitted on none."""
    found = []
    for title, errors in (("TPOT", rival_tpot_errors), ("TTFT, runs within memory", rival_ttft_errors)):
        rows = [(*key, *_cells(there)) for key, alike in groups.items() if (there := errors(alike, rival))]
        found.append(_errors_by_group(f"rival's {title}, all runs", rows).without_empty(DASH))
    return found


def _planner_table(scored: Sequence[ScoredRun], computed: Sequence[ComputedRun], rival: RivalTimes | None) -> Table:
    """Held-out TPOT of the planner, without constants, and of the rival on the same runs."""
    held = [one for one in scored if one.tpot and not one.run.calibrates]
    bare = [
        (one.run.tpot_ms, 1e3 * tpot_seconds(one.features, NO_CONSTANTS))
        for one in computed
        if one.features and one.run.tpot_ms and not one.run.calibrates
    ]
    rows = [("planner", *_cells(tpot_errors(held))), ("planner without constants", *_cells(errors_of(bare)))]
    if rival is not None:
        alike = [one for one in held if one.run.id in rival]
        fitted = {
            f"rival, {formatting.pluralize(count, 'constant')} a group": calibrate_rival(scored, rival, count)
            for count in range(1, MOST_RIVAL_CONSTANTS + 1)
        }
        rows.append(("planner, runs that the rival has", *_cells(tpot_errors(alike))))
        rows += [(name, *_cells(rival_tpot_errors(alike, times))) for name, times in {"rival": rival, **fitted}.items()]
    columns = Column("prediction", number=False), *ERROR_COLUMNS
    return Table(title="TPOT of held-out runs", columns=columns, groups=(tuple(rows),))


def _refusal_table(scored: Sequence[ScoredRun]) -> Table:
    reasons = Counter(one.refused for one in scored if one.refused)
    ordered = reasons.most_common()
    rows = [(str(count), why) for why, count in ordered[:MOST_REASONS]]
    if more := sum(count for _, count in ordered[MOST_REASONS:]):
        others = formatting.pluralize(len(ordered) - MOST_REASONS, "other reason")
        rows.append((str(more), f"{others}: see --format json"))
    columns = Column("runs"), Column("why", number=False, prose=True)
    return Table(title="not predicted", columns=columns, groups=(tuple(rows),))
