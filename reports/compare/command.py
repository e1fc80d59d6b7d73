"""`compare`: write what changed between files, and fail on a closed gate."""

from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from reports import formatting, output, results
from reports.compare.comparison import Comparison, cases_only_in, compare_files
from reports.compare.report import comparison_page, comparison_record
from reports.output import Format
from specs.errors import GateError, UserError

# `compare --gate 5%`: fail on a slowdown above the limit, so that CI stops, and list what could not be judged.

MAX_NAMED = 20
"""Number of cases that are named."""


def check_gate(found: Sequence[Comparison], threshold: float) -> list[str]:
    """Fail on a slowdown above the threshold, or on a new failure.

    Returns:
        What could not be judged, a line each: it must not count as passed.

    Raises:
        GateError: a case slowed down, or fails now.
        UserError: nothing could be judged, or a profile was given: a blind gate must not look open.
    """
    for versus in found:
        for file in (versus.a, versus.b):
            if file.machine.get("profiler"):
                raise UserError(f"--gate: {file.path} was timed with a profiler attached; give the run itself")
    wrong = [line for versus in found for line in (*_lost_cases(versus), *_slowdowns(versus, threshold))]
    if wrong:
        more = [f"… and {len(wrong) - MAX_NAMED} more"] if len(wrong) > MAX_NAMED else []
        raise GateError("\n".join(f"gate: {line}" for line in [*wrong[:MAX_NAMED], *more]))
    for versus in found:
        if not any(pair.basis for pair in versus.pairs):
            raise UserError(
                f"--gate: none of {len(versus.pairs)} cases of {versus.a.path} and {versus.b.path} has an interval, so "
                "nothing could be judged; measure both with --passes 6"
            )
    return [line for versus in found for line in _unjudged(versus, threshold)]


def _slowdowns(versus: Comparison, threshold: float) -> list[str]:
    named = f"{versus.b.path}: "
    cases = [
        f"{named}{pair.a.case.name}: {pair.ratio:.3f} times {versus.a.path}, surely over {pair.widened_interval[0]:.3f}"
        for pair in sorted(versus.pairs, key=lambda pair: -pair.ratio)
        if pair.verdict_at(threshold) == "slower" and pair.widened_interval
    ]
    groups = [
        f"{named}all {len(group.pairs)} of {group.name} together: {group.ratio:.3f} times {versus.a.path}"
        for group in versus.groups
        if not cases and len(group.pairs) > 1 and group.verdict_at(threshold) == "slower"
    ]
    return cases or groups


def _lost_cases(versus: Comparison) -> list[str]:
    """Return the cases that only the baseline measured to the end.

    They must not vanish.
    """
    before, b = {one.case.name: one for one in versus.a.measurements}, versus.b
    cut = {one.case.name: one.stopped_by for one in b.measurements if one.stopped_by.startswith("error")}
    how = [(b.failed, "failed"), (b.not_run, "was not run"), (cut, "was cut off")]
    return [
        f"{b.path}: {case} {what}, which {versus.a.path} measured: {reason}"
        for reasons, what in how
        for case, reason in reasons.items()
        if case in before and not before[case].stopped_by.startswith("error")
    ]


def _unjudged(versus: Comparison, threshold: float) -> list[str]:
    gone = len(set(cases_only_in(versus.a, [versus.b])) - versus.b.failed.keys() - versus.b.not_run.keys())
    alone = sum(1 for pair in versus.pairs if pair.basis is None)
    coarse = [pair for pair in versus.pairs if (reach := pair.detectable) is not None and reach > 2 * threshold]
    said = {
        f"{formatting.pluralize(gone, 'case')} of {versus.a.path} not in it": gone,
        f"{formatting.pluralize(len(versus.mismatched), 'case')} of one name not of the same work": len(
            versus.mismatched
        ),
        f"{formatting.pluralize(alone, 'case')} with a single pass": alone,
        f"{formatting.pluralize(len(coarse), 'case')} too noisy to tell twice the gate's "
        f"{formatting.percent(threshold)}": len(coarse),
    }
    return [f"gate: not judged in {versus.b.path}: {text}" for text, count in said.items() if count]


def compare(
    paths: Sequence[Path],
    threshold: float | None,
    format: Format,  # noqa: A002
    to: Path | None,
    *,
    limit: float | None = None,
    every: bool = False,
) -> list[str]:
    """Write the comparison of each further file with the first.

    The result lists what a gate could not judge.

    Args:
        paths: the baseline, then one file or more.
        threshold: change that counts; None to derive it from the files.
        format: output format.
        to: output path; None for standard output.
        limit: slowdown above which the gate fails; None for no gate.
        every: show all cases of long tables.

    Raises:
        UserError: a file cannot be read, two files share no case, or the report cannot be written.
        GateError: the gate is closed.
    """
    names = _file_letters(len(paths))
    loaded = [results.load(path) for path in paths]
    found = [compare_files(loaded[0], other, threshold) for other in loaded[1:]]
    if format is Format.JSON:
        output.emit([], comparison_record(loaded, found, names), format, to, paths)
    else:
        output.emit(comparison_page(loaded, found, names, every=every), None, format, to, paths)
    if limit is not None:
        return check_gate(found, limit)
    return []


def _file_letters(count: int) -> str:
    if not 2 <= count <= len(ascii_uppercase):
        raise UserError(f"compare: {count} files given; give the baseline and 1 to {len(ascii_uppercase) - 1} others")
    return ascii_uppercase[:count]
