"""One start of a program of nccl-tests: where it ran, how it timed, and the rows of its table as they stand there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from specs.errors import UserError


class Row(NamedTuple):
    """One time.

    Attributes:
        place: where it stands: line 17, result 3.
        size: bytes; elements: the column called count.
        type, redop, root: as printed.
        in_place: whether it is of the columns for results written over the message.
        microseconds, algbw, busbw: with the digits that are printed, which say how exact they are; GB are 1e9 bytes.
        wrong: elements that were wrong; N/A where nobody looked.
    """

    place: str
    size: int
    elements: int
    type: str
    redop: str
    root: int
    in_place: bool
    microseconds: Decimal
    algbw: Decimal
    busbw: Decimal
    wrong: str


class Device(NamedTuple):
    """A rank's GPU, as listed under `Using devices`."""

    rank: int
    group: int
    host: str
    gpu: str


def figure(text: str | Decimal) -> Decimal:
    """A figure with the digits that are printed.

    Raises:
        ValueError: it is none.
    """
    found = Decimal(text)
    if not found.is_finite():
        raise ValueError(f"{text!r} is no figure")
    return found


def wrong(text: object) -> str:
    """What stands in the column of wrong elements, 0 in one way only.

    Raises:
        ValueError: it is neither a number nor N/A.
    """
    return "N/A" if text in (None, "N/A") else f"{float(str(text).rstrip('*')):g}"


@dataclass
class Run:
    """What one start printed.

    Attributes:
        library: nccl or rccl.
        program: all_reduce_perf, …; None where an old version did not say.
        version: of nccl-tests; library_version: of NCCL or RCCL. None where they are not printed.
        devices: one for each rank.
        settings_seen: whether the line of settings is there; versions that know no graphs leave those out of it.
        graph, iterations, aggregated: CUDA graph launches, calls that a time is the average of, and calls in a group.
        blocking: whether each call was waited for.
        rows, unread: the table, and by place why a row of it cannot be read.
        out_of_bounds: what the line under the table counts; None before it has come.
        errors: whether `wrong` is the largest error of an old version and no count of wrong elements.
    """

    library: str = "nccl"
    program: str | None = None
    version: str | None = None
    library_version: str | None = None
    devices: list[Device] = field(default_factory=list)
    settings_seen: bool = False
    graph: int = 0
    iterations: int = 1
    aggregated: int = 1
    blocking: bool = False
    rows: list[Row] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    out_of_bounds: int | None = None
    errors: bool = False

    @property
    def groups(self) -> int:
        """Groups of ranks that called at the same time, each for itself."""
        return len({one.group for one in self.devices})

    @property
    def ranks(self) -> int:
        """Ranks that a call is between."""
        return len(self.devices) // self.groups

    @property
    def hosts(self) -> int:
        """Hosts that rank 0's group is on."""
        return len({one.host for one in self.devices if one.group == self.devices[0].group})

    @property
    def gpus(self) -> Sequence[str]:
        """Names of the GPUs, each once."""
        return list(dict.fromkeys(one.gpu for one in self.devices))

    @property
    def launch(self) -> str:
        """As cases call it."""
        if not self.settings_seen:
            return "unknown"
        return "graph" if self.graph else "eager"

    def check_devices(self) -> None:
        """See that the list of devices is whole.

        Raises:
            UserError: it is missing, cut, or that of several programs that knew nothing of each other.
        """
        ranks = [one.rank for one in self.devices]
        if not ranks:
            raise UserError("no list under `Using devices`, so that nothing says how many ranks; give the whole output")
        if len(set(ranks)) < len(ranks):
            raise UserError(
                f"rank {max(ranks, key=ranks.count)} is listed {max(map(ranks.count, ranks))} times: logs are mixed, "
                "or several programs ran, each alone; build nccl-tests with MPI=1, or give each one's output by itself"
            )
        if sorted(ranks) != list(range(len(ranks))):
            raise UserError(f"{len(ranks)} ranks are listed up to rank {max(ranks)}; the list is cut, give all of it")
        if len({sum(one.group == group for one in self.devices) for group in {one.group for one in self.devices}}) > 1:
            raise UserError("its groups of ranks are not of one size, and a row does not say of which it is")
        if len(self.gpus) > 1:
            raise UserError(f"ran on different GPUs: {', '.join(self.gpus)}; a result file is of one")


def version_of(code: int) -> str | None:
    """NCCL's version number for people: 22807 -> 2.28.7, and before 2.9 2708 -> 2.7.8."""
    if not code:
        return None
    major, rest = divmod(code, 10_000 if code >= 10_000 else 1_000)
    return f"{major}.{rest // 100}.{rest % 100}"
