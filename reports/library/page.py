"""A result file's own page: hardware, versions, date, commit, command, ceilings, figures, and how sure they are."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from reports import show
from reports.communication.reference import NOTHING
from reports.experiment import chapter as experiments
from reports.library.summary import Summary
from reports.page import Block, Facts
from reports.units import counted
from specs.units import binary_bytes

MOST_ROWS = 48
"""Of a table on a page; `show` has them all."""
VERSIONS = {"python_version": "Python", "pytest": "pytest", "pytest-benchmark": "pytest-benchmark", "numpy": "numpy"}
HARDWARE = {
    "memory_bytes": "memory",
    "threads": "hardware threads",
    "gpus": "GPUs",
    "arch": "architecture",
    "power_limit_watts": "W power limit",
    "sm_mhz_default": "MHz default clock",
    "sm_mhz_most": "MHz highest clock",
    "ecc": "ECC",
    "mig": "MIG",
}


def blocks(one: Summary) -> list[Block]:
    """The page: what the file is, what it says in short, its tables, what did not run."""
    above, *rest = show.section(one.file, one.figures, NOTHING)
    assert isinstance(above, Facts)  # noqa: S101  # section's first block is the header
    page: list[Block] = [Facts(title=one.name, rows=tuple(_facts(one, above)), level=1)]
    if one.headlines:
        page.append(Facts(title="in short", rows=tuple(one.headlines), level=2))
    page.append(Facts(title="figures", rows=(), level=2))
    figures = [_cut(block, str(one.file.path)) for block in rest if block.title != experiments.TITLE]
    return [*page, *figures]


def _facts(one: Summary, above: Facts) -> Iterable[tuple[str, str]]:
    """The header's lines, with more of the hardware and of the versions than a terminal has room for."""
    machine = one.file.machine
    more = {"machine": _hardware(machine), "software": _versions(machine)}
    for name, text in above.rows:
        yield name, ", ".join(filter(None, [text, more.get(name, "")]))
    if ranks := machine.get("ranks"):
        hosts = counted(machine.get("hosts") or 1, "host")
        yield "ranks", ", ".join(map(str, filter(None, [ranks, f"on {hosts}", machine.get("transport")])))
    if variables := machine.get("variables"):
        yield "variables", " ".join(f"{name}={value}" for name, value in sorted(variables.items()))
    yield "certainty", one.certainty()
    yield "file", f"[{one.file.path.name}]({one.file.path.name})"


def _hardware(machine: Mapping[str, Any]) -> str:
    facts = {name: machine[name] for name in HARDWARE if machine.get(name) not in (None, "", "cpu")}
    return ", ".join(_fact(HARDWARE[name], value) for name, value in facts.items())


def _fact(what: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{what} {'on' if value else 'off'}"
    if what == "memory" and isinstance(value, int):
        return f"{binary_bytes(value)} {what}"
    return f"{value} {what}" if isinstance(value, int | float) else f"{what} {value}"


def _versions(machine: Mapping[str, Any]) -> str:
    packages = machine.get("packages")
    known = {**machine, **(packages if isinstance(packages, dict) else {})}
    named = [f"{title} {known[name]}" for name, title in VERSIONS.items() if known.get(name)]
    system = " ".join(str(machine[name]) for name in ("system", "release") if machine.get(name))
    return ", ".join(filter(None, [*named, system]))


def _cut(block: Block, path: str) -> Block:
    """A table no longer than a page bears, and where the rest of it is."""
    if isinstance(block, Facts) or len(block.rows) <= MOST_ROWS:
        return block
    left, groups = MOST_ROWS, []
    for group in block.groups:
        groups.append(tuple(islice(group, left)))
        left -= len(groups[-1])
    note = f"the first {MOST_ROWS} of {len(block.rows)} rows; python -m reports show {path} has them all"
    return replace(block, groups=tuple(filter(None, groups)), notes=(*block.notes, note))
