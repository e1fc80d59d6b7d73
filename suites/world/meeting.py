"""How the processes that a launcher started find rank 0's: under torchrun its store says where that listens.

Under srun and mpirun it listens at MASTER_ADDR and MASTER_PORT.
"""

import os
import socket
import time
from datetime import timedelta
from multiprocessing.connection import Connection

import psutil
from torch.distributed import DistError, Store, TCPStore  # type: ignore[attr-defined]

from specs.errors import UserError
from suites.world.place import Place
from suites.world.wire import Wire

RETRY_SECONDS = 0.2


def listen(place: Place, timeout_seconds: float) -> socket.socket:
    """Rank 0's end.

    Raises:
        UserError: the port is taken, or the address is not this host's.
    """
    port = 0 if _agent() else place.port
    try:
        server = socket.create_server((place.address, port), backlog=place.ranks)
    except OSError as error:
        raise UserError(
            f"rank 0 cannot listen on {place.address}:{port} ({error.strerror}); set MASTER_PORT to a free "
            "port and MASTER_ADDR to an address of rank 0's host, the same on every rank"
        ) from error
    if _agent():
        _store(place, timeout_seconds).set(_key(), str(server.getsockname()[1]))
    return server


def reach(place: Place, timeout_seconds: float) -> Wire:
    """The way to rank 0, which may start later.

    Raises:
        UserError: it cannot be reached in time.
    """
    deadline, port = time.monotonic() + timeout_seconds, place.port
    why = ""
    if _agent():
        port = int(_store(place, timeout_seconds).get(_key()))
    while (left := deadline - time.monotonic()) > 0:
        try:
            return to_wire(socket.create_connection((place.address, port), timeout=left))
        except OSError as error:
            why = str(error.strerror or error)
            time.sleep(RETRY_SECONDS)
    raise UserError(
        f"{place}: rank 0 at {place.address}:{port} cannot be reached within {timeout_seconds:g} s ({why}); "
        "is it started, and are MASTER_ADDR and MASTER_PORT right?"
    )


def to_wire(connection: socket.socket) -> Wire:
    """A socket for whole messages; short ones are not held back."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Wire(Connection(connection.detach()))


def _agent() -> bool:
    """Whether torchrun's agent listens at the port itself."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _store(place: Place, timeout_seconds: float) -> Store:
    try:
        return TCPStore(place.address, place.port, is_master=False, timeout=timedelta(seconds=timeout_seconds))
    except (RuntimeError, DistError) as error:
        raise UserError(
            f"{place}: torchrun's store at {place.address}:{place.port} cannot be reached within {timeout_seconds:g} s"
        ) from error


def _key() -> str:
    return f"shardbench/{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def interface(place: Place) -> str | None:
    """The network interface that reaches rank 0's host; None where that cannot be told.

    gloo would ask for the address of this host's own name, which often is the loopback's.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((place.address, place.port))  # sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return None
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if any(one.address == own for one in addresses)), None)
