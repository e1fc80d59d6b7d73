"""The comparison for a machine; the names of its keys are a contract."""

from collections.abc import Sequence
from typing import Any

from reports.compare import comparability
from reports.compare.explain import Explanation
from reports.compare.groups import Group
from reports.compare.match import lacking, only_in
from reports.compare.verdict import Comparison
from reports.compare.versus import Versus
from reports.files import ResultFile

Record = dict[str, Any]


def record(files: Sequence[ResultFile], found: Sequence[Versus], labels: Sequence[str]) -> Record:
    """Everything: each case of each file against the first one, groups, and what could not be compared.

    Args:
        files: the baseline, then the others.
        found: the others against it.
        labels: A, B, C, … for each file.
    """
    against = list(zip(labels[1:], found, strict=True))
    several = list(zip(labels, files, strict=True))
    return {
        "files": {label: str(file.path) for label, file in several},
        **({"threshold": found[0].threshold, "summary": _summary(found[0])} if len(found) == 1 else {}),
        "thresholds": {label: one.threshold for label, one in against},
        "summaries": {label: _summary(one) for label, one in against},
        "cases": [{"file": label, **_case(pair, why)} for label, one in against for pair, why in one.cases],
        "groups": [{"file": label, **_group(group, one)} for label, one in against for group in one.groups],
        "only_in": {label: only_in(file, [other for other in files if other is not file]) for label, file in several},
        "not_in": {label: lacking(file, [other for other in files if other is not file]) for label, file in several},
        "unlike": {label: dict(one.unlike) for label, one in against},
        "warnings": [line for label, one in against for line in comparability.warnings(one, labels[0], label)],
    }


def _case(pair: Comparison, why: Explanation) -> Record:
    (low, high), (widened_low, widened_high) = pair.interval or (None, None), pair.widened or (None, None)
    return {
        "case": pair.a.case.name,
        "a_median_seconds": pair.a.median,
        "b_median_seconds": pair.b.median,
        "ratio": pair.ratio,
        "low": low,
        "high": high,
        "interval_over": pair.basis,
        "widened_low": widened_low,
        "widened_high": widened_high,
        "drift_low": pair.drift[0],
        "drift_high": pair.drift[1],
        "verdict": pair.verdict,
        "detectable": pair.detectable,
        "explained_by": why.by,
        "unexplained": why.unexplained,
        "expected_ratio": why.expected,
        "binding": list(why.bound) if why.bound else None,
        "binding_share": why.share,
        "could_explain": dict(why.could),
    }


def _group(group: Group, one: Versus) -> Record:
    low, high = group.interval or (None, None)
    return {
        "group": group.name,
        "cases": len(group.pairs),
        "ratio": group.ratio,
        "low": low,
        "high": high,
        "least": group.span[0],
        "greatest": group.span[1],
        "verdict": group.at(one.threshold),
        **group.counts,
        "could_explain": {name: list(span) for name, span in group.resources.items()},
        "explained": group.explained,
        "unexplained": group.unexplained,
    }


def _summary(versus: Versus) -> Record:
    return {**versus.counts, "geometric_mean_ratio": versus.ratio, "detectable": versus.detectable}
