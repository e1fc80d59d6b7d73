"""How a run was started: as its file says, or put together again from its options."""

import shlex
from collections.abc import Mapping
from typing import Any

from reports.files import ResultFile
from specs.units import STEPS

DEFAULTS: Mapping[str, Any] = {"rank_timeout": 60.0}
"""Options that a file holds though nobody gave them."""
FEW = 3
"""Suites that are named one by one; those who ran more ran them all."""


def told(file: ResultFile) -> str:
    """The command; of a file that does not say it one that asks for the same, and that it is such a one.

    An import's is nowhere: its options do not say what was imported.
    """
    if file.command or file.published or file.profiler:
        return file.command
    return f"{by_options(file)} (by its options)" if file.options or file.measurements else ""


def by_options(file: ResultFile) -> str:
    """The suites that its cases are of, and its options."""
    names = [*(one.case.name for one in file.measurements), *file.not_run, *file.failed]
    suites = sorted({name.partition("::")[0] for name in names if "::" in name}) or ["suites/"]
    words = [f"--{name.replace('_', '-')} {_value(name, value)}".rstrip() for name, value in _given(file.options)]
    return " ".join(["pytest", *(suites if len(suites) <= FEW else ["suites/"]), *words])


def _given(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in options.items() if DEFAULTS.get(name) != value]


def _value(name: str, value: Any) -> str:
    """As it is typed: bytes in their unit, milliseconds, prompts as 4x512, and nothing for a switch."""
    if value is True:
        return ""
    if not isinstance(value, list | tuple):
        return shlex.quote(f"{value:g}" if isinstance(value, float) else str(value))
    return shlex.quote(",".join(_member(name, one) for one in value))


def _member(name: str, one: Any) -> str:
    if name == "message" and isinstance(one, int):
        return next((f"{one // factor}{symbol}" for factor, symbol in STEPS if one % factor == 0), str(one))
    if name == "gap" and isinstance(one, int | float):
        return f"{one * 1e3:g}"
    return "x".join(map(str, one)) if isinstance(one, list | tuple) else str(one)
