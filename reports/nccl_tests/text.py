"""What the programs print to standard output; one log may hold several runs, and other lines between theirs."""

import re

from reports.nccl_tests.run import Device, Run, version_of
from reports.nccl_tests.table import Table
from specs.errors import UserError

TAG = re.compile(r"^(?:\[\d+,\d+\]<std(?:out|err)>: ?|\d+: (?=[# ]))")
"""What mpirun --tag-output and srun --label put before each line."""
VERSION = re.compile(r"# (nccl|rccl)-tests version (\S+).*?-library=(\d+)")
STARTING = re.compile(r"# Collective test starting: (\S+)")
SETTINGS = re.compile(r"# ?nThread \d+ nGpus \d+ ")
ITERATIONS = re.compile(r"warmup iters: \d+ iters: (\d+)(?: agg iters: (\d+))?(?:.* graph: (\d+))?")
DEVICE = re.compile(r"#\s+Rank\s+(\d+)(?:\s+Group\s+(\d+))?\s+Pid\s+\d+ on\s+(\S+) device\s+\d+ \[[^]]*\] (.+)")
LIBRARY = re.compile(r"(NCCL|RCCL) version\s*:?\s*(\d+\.\d+\.\d+)")
BOUNDS = re.compile(r"#\s*Out of bounds values\s*:\s*(\d+) (?:OK|FAILED)")
NAMES = re.compile(r"#\s+size\s+count\s")
ROW = re.compile(r"\s*\d+\s+\d+\s")


def read(text: str) -> list[Run]:
    """Every run of a log.

    Raises:
        UserError: there is none, one is cut short, or its header is not that of nccl-tests.
    """
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            reader.take(f"line {number}", TAG.sub("", line))
        except UserError as error:
            raise UserError(f"line {number}: {error}") from error
    return reader.runs()


class _Reader:
    """Takes line after line."""

    def __init__(self) -> None:
        self._runs = [Run()]
        self._table: Table | None = None
        self._units_seen = False
        self._before = ""

    def runs(self) -> list[Run]:
        """What came of it."""
        if self._table is None and len(self._runs) == 1:
            raise UserError("no table of nccl-tests in it; give what all_reduce_perf and the like print, or their JSON")
        for run in self._runs:
            places = [*(row.place for row in run.rows), *run.unread]
            if run.out_of_bounds is None or not places:
                after = f"after {places[-1]}" if places else "before its first row"
                raise UserError(f"cut short {after}: a run has no `Out of bounds values` under its table; run it again")
            run.check_devices()
        return self._runs

    def take(self, place: str, line: str) -> None:
        """One line.

        Raises:
            UserError: a header that is not that of nccl-tests.
        """
        if self._table and not self._units_seen:
            self._table.check_units(line)
            self._units_seen = True
        elif NAMES.match(line):
            if self._table and self._runs[-1].out_of_bounds is None:
                raise UserError("a second table before the first one's end; logs are mixed, give each run by itself")
            self._table, self._units_seen = Table(self._before, line), False
            self._runs[-1].errors = self._table.errors
        elif self._table and ROW.match(line):
            self._row(place, line, self._table)
        elif found := LIBRARY.search(line):
            self._runs[-1].library, self._runs[-1].library_version = found[1].lower(), found[2]
        elif line.startswith("#"):
            self._preamble(line)
        self._before = line

    def _row(self, place: str, line: str, table: Table) -> None:
        run = self._runs[-1]
        if run.out_of_bounds is not None:
            raise UserError("a row after the end of its table; logs are mixed, give each run by itself")
        try:
            run.rows += table.rows(place, line)
        except UserError as error:
            run.unread[place] = str(error)

    def _preamble(self, line: str) -> None:
        if bounds := BOUNDS.match(line):
            self._runs[-1].out_of_bounds = int(bounds[1])
        elif version := VERSION.match(line):
            run = self._next()
            run.library, run.version, run.library_version = version[1], version[2], version_of(int(version[3]))
        elif starting := STARTING.match(line):
            self._next().program = starting[1]
        elif SETTINGS.match(line):
            run = self._next()
            run.settings_seen = True
            if counts := ITERATIONS.search(line):
                run.iterations, run.aggregated, run.graph = (
                    int(count or was) for count, was in zip(counts.groups(), (1, 1, 0), strict=True)
                )
        elif "Blocking Enabled" in line:
            self._runs[-1].blocking = True
        elif device := DEVICE.match(line):
            self._next().devices.append(Device(int(device[1]), int(device[2] or 0), device[3], device[4].strip()))

    def _next(self) -> Run:
        """The run that a line before its table belongs to: a new one, if the last has its table."""
        if self._table is not None:
            self._runs.append(Run())
            self._table = None
        return self._runs[-1]
