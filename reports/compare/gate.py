"""`compare --gate 5%`: fail where a case became slower by more, so that CI stops."""

from collections.abc import Sequence

from reports.compare.versus import Versus
from reports.gate import GateError
from specs.errors import UserError

MOST_NAMED = 20
"""Cases that are named one by one."""


def check(found: Sequence[Versus], threshold: float) -> None:
    """Pass if no case is surely slower by more than the threshold, and none that ran before fails now.

    Raises:
        GateError: one is, or does.
        UserError: nothing could be judged: a gate that is blind must not look open.
    """
    wrong = [line for versus in found for line in (*_failed(versus), *_slower(versus, threshold))]
    if wrong:
        more = [f"… and {len(wrong) - MOST_NAMED} more"] if len(wrong) > MOST_NAMED else []
        raise GateError("\n".join(f"gate: {line}" for line in [*wrong[:MOST_NAMED], *more]))
    for versus in found:
        if not any(pair.basis for pair in versus.pairs):
            raise UserError(
                f"--gate: none of {len(versus.pairs)} cases of {versus.a.path} and {versus.b.path} has an interval, so "
                "nothing could be judged; measure both with --passes 6"
            )


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


def _failed(versus: Versus) -> list[str]:
    """Cases that the baseline has a time of and the other file a failure: they must not vanish."""
    measured = {one.case.name for one in versus.a.measurements}
    return [
        f"{versus.b.path}: {case} failed, which {versus.a.path} measured: {reason}"
        for case, reason in versus.b.failed.items()
        if case in measured
    ]
