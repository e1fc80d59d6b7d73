"""One program with a time limit: what it starts ends with it, and nothing else does."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

GRACE_SECONDS = 8.0
"""Most of a limit that lies between the interrupt, at which a program can still write what it has, and the kill."""
GRACE_SHARE = 0.2

MARK = "SHARDBENCH_GATE_STARTED"
"""Variable by which all that a program has started is known, also what left its process group."""


def run_limited(
    command: Sequence[str],
    log: IO[bytes],
    seconds: float,
    environment: Mapping[str, str],
    grace: float = GRACE_SECONDS,
) -> int | None:
    """Exit status of `command`; None when it was ended at its limit of `seconds`.

    Its output goes to `log`. Its group is interrupted `grace` seconds before the limit, and killed at the limit. Of a
    short limit the grace is a fifth. What it has started in other groups is killed with it. The same happens when this
    program is interrupted.
    """
    grace = min(grace, GRACE_SHARE * seconds)
    mark = uuid.uuid4().hex
    above = os.environ.get(MARK, "")
    own = {**os.environ, "PYTHONUNBUFFERED": "1", **environment, MARK: f"{above}/{mark}" if above else mark}
    child = subprocess.Popen(  # noqa: S603 - a step's own command
        list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=own, start_new_session=True
    )
    try:
        return child.wait(timeout=max(0.0, seconds - grace))
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(child, grace, mark)


def _end(child: "subprocess.Popen[bytes]", grace: float, mark: str) -> None:
    """Interrupt the group, wait, kill. A leader that is gone already may have left members."""
    if child.poll() is None:
        _signal(child.pid, signal.SIGINT)
        limit = time.monotonic() + grace
        while child.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
    _signal(child.pid, signal.SIGKILL)
    child.wait()
    for process in _started_under(mark):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def _started_under(mark: str) -> Iterator[int]:
    """Processes that inherited `mark`; none where there is no /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's, or gone meanwhile
            if mark.encode() in (folder / "environ").read_bytes():
                yield int(folder.name)


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
