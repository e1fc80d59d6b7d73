"""Steps that are small Python programs, and a machine that has everything."""

import sys

from suites.gate.machine import Machine
from suites.gate.step import GateContext, Step

EVERYTHING = Machine("fake GPU", "", {})


def step(name, code="", *, seconds=20.0, least=0.1, **more):
    return Step(
        name=name,
        purpose=f"purpose of {name}",
        seconds=seconds,
        least_seconds=least,
        command=lambda place, _: [place.python, "-c", code.replace("VERDICT", repr(str(place.verdict(name))))],
        **{"packages": (), "launches": False, **more},
    )


def place(tmp_path):
    (tmp_path / "scratch").mkdir(exist_ok=True)
    return GateContext(sys.executable, tmp_path / "out", tmp_path / "scratch", tmp_path / "out/work")
