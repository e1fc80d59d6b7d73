"""Seconds for each step: a reservation that nobody else can use, and what the steps before it have left."""

from collections.abc import Sequence

from suites.gate.step import Profile, Step


def reserved(steps: Sequence[Step], budget_seconds: float) -> dict[str, float]:
    """Seconds kept for each step by name; all shrink alike where the budget is smaller than their sum."""
    asked = sum(step.seconds for step in steps)
    share = min(1.0, budget_seconds / asked) if asked else 1.0
    return {step.name: share * step.seconds for step in steps}


def grant(step: Step, own_seconds: float, later_seconds: float, left_seconds: float) -> float:
    """Seconds that a step gets: what is left less what is kept for later ones, never less than its own reservation."""
    return min(step.most_seconds, max(own_seconds, left_seconds - later_seconds))


def granted(profile: Profile, budget_seconds: float | None = None) -> dict[str, float]:
    """Seconds of each step of a profile by name, if each takes all that it gets; 0 for one that is skipped."""
    left = profile.budget_seconds if budget_seconds is None else budget_seconds
    kept, seconds = reserved(profile.steps, left), dict[str, float]()
    for index, step in enumerate(profile.steps):
        later = sum(kept[one.name] for one in profile.steps[index + 1 :])
        given = grant(step, kept[step.name], later, left)
        seconds[step.name] = given if given >= step.least_seconds else 0.0
        left -= seconds[step.name]
    return seconds
