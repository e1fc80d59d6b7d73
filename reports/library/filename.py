"""The name of a file in `reports/data`, <machine>-<date>-<commit>.json, and whether it agrees with what is in it."""

import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from reports import machine
from reports.files import ResultFile

FORM = re.compile(r"(?P<machine>[a-z0-9]+(?:-[a-z0-9]+)*)-(?P<date>\d{4}-\d\d-\d\d)-(?P<commit>[0-9a-f]{7,40})")


def faults(file: ResultFile) -> Iterator[str]:
    """A line for each part that does not agree; a file that does not tell its commit is not doubted."""
    found = FORM.fullmatch(file.path.stem)
    if not found:
        yield "its name is not <machine>-<date>-<short commit>.json"
        return
    own, ran = _words(file), file.datetime[:10]
    if not _in_order(found["machine"].split("-"), own):
        yield f"its name says {found['machine']}, it was measured on {'-'.join(own)}"
    if not _same_day(found["date"], ran):
        yield f"its name says {found['date']}, it was measured on {ran}"
    commit = str(file.commit.get("id") or "")
    if commit and not commit.startswith(found["commit"]):
        yield f"its name says commit {found['commit']}, it was measured at {commit[:12]}"


def _words(file: ResultFile) -> list[str]:
    """The GPU, or the CPU and its threads, as `python -m suites name` puts them."""
    name = machine.name(file.machine)
    cores = "" if file.machine.get("gpu") else f" {file.machine.get('threads')} threads"
    return re.findall(r"[a-z0-9]+", f"{name}{cores}".lower())


def _in_order(some: Sequence[str], words: Sequence[str]) -> bool:
    """Whether all of them are among the words, in their order: a name may leave out what tells nothing."""
    left = iter(words)
    return all(word in left for word in some)


def _same_day(named: str, ran: str) -> bool:
    """Up to a day apart: the name has the local date of the start, the file the time of the end in UTC."""
    try:
        return abs(date.fromisoformat(named) - date.fromisoformat(ran)) <= timedelta(days=1)
    except ValueError:
        return False
