"""One program with a time limit: what it starts ends with it, and nothing else does."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

GRACE_SECONDS = 8.0
"""From the interrupt, at which a program can still write what it has, to the kill."""


def run_limited(
    command: Sequence[str], log: IO[bytes], seconds: float, environment: Mapping[str, str], grace: float = GRACE_SECONDS
) -> int | None:
    """Exit status of `command`; None when it took longer than `seconds` and was ended.

    Its output goes to `log`. It leads a process group of its own: a limit, or Ctrl-C here, ends that group.
    """
    own = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    child = subprocess.Popen(  # noqa: S603 - a step's own command
        list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=own, start_new_session=True
    )
    try:
        return child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(child, grace)


def _end(child: "subprocess.Popen[bytes]", grace: float) -> None:
    """Interrupt the group, wait, kill. A leader that is gone already may have left members."""
    if child.poll() is None:
        _signal(child.pid, signal.SIGINT)
        limit = time.monotonic() + grace
        while child.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
    _signal(child.pid, signal.SIGKILL)
    child.wait()


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
