"""`compare --gate 5%`: fail where a case became slower by more, so that CI stops; say what the gate cannot see."""

from collections.abc import Sequence

from reports import units
from reports.compare.match import only_in
from reports.compare.versus import Versus
from reports.gate import GateError
from specs.errors import UserError

MOST_NAMED = 20
"""Cases that are named one by one."""


def check(found: Sequence[Versus], threshold: float) -> list[str]:
    """Pass if no case is slower by more than the threshold, and none that ran before fails now.

    Returns:
        What it could not see, a line each: it must not be taken for seen.

    Raises:
        GateError: a case is, or does.
        UserError: nothing could be judged, or a profile was given: a gate that is blind must not look open.
    """
    for versus in found:
        for file in (versus.a, versus.b):
            if file.machine.get("profiler"):
                raise UserError(f"--gate: {file.path} was timed with a profiler attached; give the run itself")
    wrong = [line for versus in found for line in (*_ended(versus), *_slower(versus, threshold))]
    if wrong:
        more = [f"… and {len(wrong) - MOST_NAMED} more"] if len(wrong) > MOST_NAMED else []
        raise GateError("\n".join(f"gate: {line}" for line in [*wrong[:MOST_NAMED], *more]))
    for versus in found:
        if not any(pair.basis for pair in versus.pairs):
            raise UserError(
                f"--gate: none of {len(versus.pairs)} cases of {versus.a.path} and {versus.b.path} has an interval, so "
                "nothing could be judged; measure both with --passes 6"
            )
    return [line for versus in found for line in _unseen(versus, threshold)]


def _slower(versus: Versus, threshold: float) -> list[str]:
    named = f"{versus.b.path}: "
    cases = [
        f"{named}{pair.a.case.name}: {pair.ratio:.3f} times {versus.a.path}, surely over {pair.widened[0]:.3f}"
        for pair in sorted(versus.pairs, key=lambda pair: -pair.ratio)
        if pair.at(threshold) == "slower" and pair.widened
    ]
    groups = [
        f"{named}all {len(group.pairs)} of {group.name} together: {group.ratio:.3f} times {versus.a.path}"
        for group in versus.groups
        if not cases and len(group.pairs) > 1 and group.at(threshold) == "slower"
    ]
    return cases or groups


def _ended(versus: Versus) -> list[str]:
    """Cases that the baseline has a time of and the other file none, or none to the end: they must not vanish."""
    before, b = {one.case.name: one for one in versus.a.measurements}, versus.b
    cut = {one.case.name: one.stopped_by for one in b.measurements if one.stopped_by.startswith("error")}
    how = [(b.failed, "failed"), (b.not_run, "was not run"), (cut, "was cut off")]
    return [
        f"{b.path}: {case} {what}, which {versus.a.path} measured: {reason}"
        for reasons, what in how
        for case, reason in reasons.items()
        if case in before and not before[case].stopped_by.startswith("error")
    ]


def _unseen(versus: Versus, threshold: float) -> list[str]:
    gone = len(set(only_in(versus.a, [versus.b])) - versus.b.failed.keys() - versus.b.not_run.keys())
    alone = sum(1 for pair in versus.pairs if pair.basis is None)
    coarse = [pair for pair in versus.pairs if (reach := pair.detectable) is not None and reach > 2 * threshold]
    said = {
        f"{units.counted(gone, 'case')} of {versus.a.path} not in it": gone,
        f"{units.counted(len(versus.unlike), 'case')} of one name not of the same work": len(versus.unlike),
        f"{units.counted(alone, 'case')} with a single pass": alone,
        f"{units.counted(len(coarse), 'case')} too noisy to tell twice the gate's {units.percent(threshold)}": len(
            coarse
        ),
    }
    return [f"gate: not judged in {versus.b.path}: {text}" for text, count in said.items() if count]
