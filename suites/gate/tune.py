"""The tuner, with what time is left."""

from suites.gate.step import TORCH, Place, Step

MARGIN_SECONDS = 10.0
"""For the tuner's start, and the candidate that it is at when its budget ends."""


def command(place: Place, seconds: float) -> list[str]:
    """`python -m kernels tune`, into a folder of its own: what is committed is chosen by a person."""
    budget = f"{max(1.0, seconds - MARGIN_SECONDS):.0f}"
    return [place.python, "-m", "kernels", "tune", "--budget", budget, "--into", str(place.out / "tuned")]


STEP = Step(
    name="tune",
    purpose="python -m kernels tune with the time that is left, into tuned/",
    seconds=600,
    least_seconds=20 + MARGIN_SECONDS,
    kept_seconds=0,
    command=command,
    packages=(*TORCH, "typer", "rich"),
)
