"""What a page of docs/ tells its reader to write and to type, in the order in which it stands there.

Three kinds of fenced blocks are steps: ```diff is applied, ```python below a line that names a file and ends in a colon
is that file, and ```console is typed: lines that begin with `$ `, each followed by lines of what it prints.
"""

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`([\w./-]+)`(?:[^`\n]|\n(?!\n))*:\n\n$")
LEFT_OUT = "…"
"""Alone in a line of output it stands for any lines, within one for any characters."""


@dataclass(frozen=True)
class Diff:
    """A change to files that are there."""

    line: int
    text: str


@dataclass(frozen=True)
class File:
    """A whole new file."""

    line: int
    path: str
    text: str


@dataclass(frozen=True)
class Command:
    """What is typed, and the lines that have to be among what it prints, in this order."""

    line: int
    command: str
    shown: tuple[str, ...]


Step = Diff | File | Command


def steps(page: Path) -> list[Step]:
    """All steps of a page.

    Raises:
        ValueError: a block of Python belongs to no file, or a block of commands begins with something else.
    """
    text, found = page.read_text(), list[Step]()
    for fence in FENCE.finditer(text):
        kind, body = fence.groups()
        line = text.count("\n", 0, fence.start()) + 2
        if kind == "diff":
            found.append(Diff(line, body))
        elif kind == "python":
            name = NAMED.search(text[: fence.start()])
            if name is None:
                raise ValueError(f"{page.name}:{line}: no line above names the file that this is")
            found.append(File(line, name[1], body))
        elif kind == "console":
            found += _commands(page, line, body)
    return found


def _commands(page: Path, line: int, body: str) -> list[Command]:
    ahead, *typed = re.split(r"^\$ ", body, flags=re.MULTILINE)
    if ahead:
        raise ValueError(f"{page.name}:{line}: a block of commands begins with `$ `")
    found = []
    for one in typed:
        words, _, output = one.partition("\n")
        while words.endswith("\\"):
            more, _, output = output.partition("\n")
            words = words[:-1] + more.removeprefix("> ")
        shown = tuple(row.strip() for row in output.splitlines() if row.strip() not in ("", LEFT_OUT))
        found.append(Command(line, words, shown))
        line += one.count("\n")
    return found


def missing(shown: tuple[str, ...], printed: str) -> str | None:
    """The first line of `shown` that is not among those printed after the one before; None where all are.

    How wide the columns of a table are does not count.
    """
    rows = (" ".join(row.split()) for row in printed.splitlines())
    for wanted in shown:
        pattern = re.compile(".*?".join(map(re.escape, " ".join(wanted.split()).split(LEFT_OUT))))
        if not any(pattern.search(row) for row in rows):
            return wanted
    return None
