"""An experiment for a machine: SI units, medians, None where there is nothing to say."""

from dataclasses import asdict
from typing import Any

from reports.experiment.answer import sentence
from reports.experiment.collect import Experiment
from reports.experiment.duel import Duel, crossover, duels
from reports.experiment.table import Row, rows
from specs import measurement


def record(name: str, experiment: Experiment) -> dict[str, Any]:
    """Its setting, its answer, TP against PP at each load, and every run with its ledger."""
    found = duels(experiment)
    return {
        "file": str(experiment.file.path),
        **experiment.setting._asdict(),
        "answer": sentence(name, experiment),
        "crossover": asdict(crossover(found)) if found and experiment.setting.decode else None,
        "duels": [_duel(one) for one in found],
        "runs": [_run(row) for group in rows(experiment) for row in group],
    }


def _duel(one: Duel) -> dict[str, Any]:
    low, high = one.ratio.interval or (None, None)
    return {
        **one.load._asdict(),
        "tp": str(one.tp),
        "pp": str(one.pp),
        "pp_over_tp": one.ratio.value,
        "low": low,
        "high": high,
        "winner": one.winner,
    }


def _run(row: Row) -> dict[str, Any]:
    low, high = row.measurement.interval or (None, None)
    ledgers = row.measurement.ledgers
    return {
        "case": row.measurement.case.name,
        "deployment": str(row.deployment),
        **asdict(row.deployment),
        **row.load._asdict(),
        "seconds": row.measurement.median,
        "low": low,
        "high": high,
        "passes": len(row.measurement.seconds),
        "tokens_per_second": row.tokens_per_second,
        "mark": row.mark or None,
        "ledger": dict(row.ledger) or None,
        "stages": measurement.by_stage(ledgers) if ledgers else None,
        "warnings": row.figures.warnings(),
    }
