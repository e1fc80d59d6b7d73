"""Runs of the real command with a fault planted in a rank, each bounded in time."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from specs import journal
from specs.errors import UserError

ROOT = Path(__file__).parents[3]
SPARED_PLUGINS = ("-p", "no:hypothesispytest")
"""A plugin of the tests that users do not have; loading it takes a second."""
TIMEOUT = 10
"""--rank-timeout: the ranks of a slow machine have to start within it."""
MARGIN = 10
"""What may pass besides until a fault has been told."""
LIMIT = 120
"""After which a run is ended and its test fails: a slow machine starts and measures besides."""
BEFORE, STRUCK, AFTER = 1, 4, 64
"""KiB of the case before the fault, of that which it happens to, and of the one that is still to come."""
LAUNCHER_PREFIXES = ("RANK", "LOCAL_", "WORLD_SIZE", "MASTER_", "SLURM_", "OMPI_", "PMI_", "MPI_LOCAL", "TORCHELASTIC")


class PytestRun:
    """A process of pytest and what came of it.

    Args:
        folder: of its files; runs that belong together share it.
        options: these come last, so they win.
        planted: faults, as the faulty worker reads them.
        kib: messages of the cases.
        environment: variables besides.
        before: the words before `-m pytest`.
        suite: the file that is run.
    """

    def __init__(
        self,
        folder,
        *options,
        planted=(),
        kib=(BEFORE, STRUCK, AFTER),
        environment=None,
        before=(sys.executable,),
        suite="suites/bench_collectives.py",
    ):
        self.json = folder / "out.json"
        self.journal_path = folder / "out.json.journal.jsonl"
        self.seen, self.temporary = folder / "ranks", folder / "tmp"
        self.seen.mkdir(exist_ok=True)
        self.temporary.mkdir(exist_ok=True)
        self._log = folder / f"{time.monotonic_ns()}.log"
        usual = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER_PREFIXES)}
        usual |= {"SEEN": f"{self.seen}", "PLANTED": json.dumps(planted), "TMPDIR": f"{self.temporary}"}
        command = [*before, "-m", "pytest", suite, "-p", "tests.suites.workers.faulty"]
        command += [
            "-p",
            "no:cacheprovider",
            *SPARED_PLUGINS,
            "-k",
            "all_reduce",
            "--impl=gloo",
            f"--message={','.join(f'{one}KiB' for one in kib)}",
        ]
        command += ["--passes=1", f"--rank-timeout={TIMEOUT}", f"--benchmark-json={self.json}", *options]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**usual, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._noticed = {}

    def until_struck(self):
        """Wait until the usual fault happens."""
        deadline = time.monotonic() + LIMIT
        while not self.seen.joinpath(f"struck-{STRUCK}").exists():
            assert time.monotonic() < deadline, f"no fault within {LIMIT} s:\n{self.output}"
            assert self.process.poll() is None, f"ended before the fault:\n{self.output}"
            time.sleep(0.02)

    def wait(self, limit=LIMIT):
        """Until it ends by itself."""
        deadline = time.monotonic() + limit
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"did not end within {limit} s:\n{self.output}"
            self._notice()
            time.sleep(0.05)
        return self

    def _notice(self):
        """Keep the moments at which failures came to the journal, which is being written."""
        with suppress(UserError):
            self._noticed = dict.fromkeys(self.failed, time.time()) | self._noticed

    def end(self):
        """Kill it and its ranks."""
        for pid in [*self.left(), *([self.process.pid] if self.process.poll() is None else [])]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def seconds_to_notice(self, kib=STRUCK):
        """From the fault to its line in the journal."""
        return self._noticed.get(kib, time.time()) - self.seen.joinpath(f"struck-{kib}").stat().st_mtime

    @property
    def status(self):
        return self.process.returncode

    @property
    def output(self):
        return self._log.read_text(errors="replace")

    @property
    def failed(self):
        """The reasons in the journal by KiB."""
        return {kib_of(name): reason for name, reason in journal.read_journal(self.journal_path).failed.items()}

    @property
    def measured(self):
        """The samples in the journal by KiB."""
        entries = journal.read_journal(self.journal_path).benchmarks
        return {kib_of(name): entry["stats"]["data"] for name, entry in entries.items()}

    @property
    def result(self):
        """The result file, which has to be valid JSON: no NaN."""
        return json.loads(self.json.read_text(), parse_constant=_refuse)

    @property
    def written(self):
        """The samples in the result file by KiB."""
        return {kib_of(one["fullname"]): one["stats"]["data"] for one in self.result["benchmarks"]}

    def errors(self):
        """Lines that pytest prints for a run that was not done."""
        return [line for line in self.output.splitlines() if line.startswith("ERROR: ")]

    def ranks(self):
        """Processes of all ranks that there ever were."""
        return [int(one.name) for one in self.seen.iterdir() if one.name.isdecimal()]

    def most_at_once(self):
        """How many of them there were at the same time: a lost one must not disturb those that come after it."""
        return 1 + max(int(self.seen.joinpath(str(pid)).read_text() or 0) for pid in self.ranks())

    def left(self):
        """Those that still live."""
        return [pid for pid in self.ranks() if is_alive(pid)]

    def leaves_nothing(self, within=5):
        """Whether no rank lives, given a moment, and no file of theirs is left."""
        deadline = time.monotonic() + within
        while self.left() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.left() and not list(self.temporary.glob("shardbench-*"))


def _refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def kib_of(name):
    """The message of a case, by which these tests tell cases apart."""
    return int(re.search(r"-(\d+)KiB-", name)[1])


def is_alive(pid):
    """Whether a process runs or is stopped; one that only waits to be collected does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def fault(rank, what, when, kib=STRUCK, after=None):
    """A fault as the faulty worker reads it."""
    return {"rank": rank, "what": what, "when": when, "kib": kib, "after": after}


def launcher_variables(rank, ranks, port, address="127.0.0.1", *, hosts=1):
    """Variables that a launcher sets."""
    local_rank, local_ranks = divmod(rank, hosts)[0], ranks // hosts
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, ranks, local_rank, local_ranks, address, port)
    return dict(zip(names, map(str, values), strict=True))


def free_port():
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
