"""MPI through mpi4py, between CPUs: the machine's own MPI, next to gloo.

mpi4py calls MPI_Init on import, so `connect` imports it. A rank is a child of the process that mpirun started; the
parent never uses MPI. Only one process in each place may use it, and only once.
"""

import importlib
from importlib.util import find_spec
from typing import Any

import torch

from comm.backend import Backend, Communicator, World
from comm.backends.torch_distributed import why_not_all_ranks
from specs.errors import UserError

START_COMMAND = "mpirun -n 2 python -m pytest suites/bench_collectives.py --impl mpi"
INSTALL_HINT = "pip install mpi4py, beside an MPI such as Debian's openmpi-bin and libopenmpi-dev"


class MpiCommunicator(Communicator):
    """A communicator of its own, so that its traffic mixes with no other traffic.

    Args:
        world: the ranks.
        mpi: the module `mpi4py.MPI`.
    """

    def __init__(self, world: World, mpi: Any) -> None:
        super().__init__(world)
        self._mpi, self._ranks = mpi, mpi.COMM_WORLD.Dup()

    def barrier(self) -> None:
        """Wait until all ranks are there."""
        self._ranks.Barrier()

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Run an all-reduce out of place, which MPI supports.

        The message stays, so repeated calls do not overflow.
        """
        self._ranks.Allreduce(message.numpy(), out.numpy(), op=self._mpi.SUM)

    def all_gather(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Run an all-gather of bytes, for any format."""
        self._ranks.Allgather(_byte_array(message), _byte_array(out))

    def reduce_scatter(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Run a reduce-scatter with parts of equal length."""
        self._ranks.Reduce_scatter_block(message.numpy(), out.numpy(), op=self._mpi.SUM)

    def broadcast(self, message: torch.Tensor, root: int) -> None:
        """Run a broadcast from rank `root`."""
        self._ranks.Bcast(_byte_array(message), root)

    def send(self, message: torch.Tensor, to: int) -> None:
        """Send, and return when the message may be overwritten.

        For a short message this is before it has arrived.
        """
        self._ranks.Send(_byte_array(message), to)

    def recv(self, out: torch.Tensor, source: int) -> None:
        """Receive from rank `source`."""
        self._ranks.Recv(_byte_array(out), source)

    def exchange(self, message: torch.Tensor, to: int, out: torch.Tensor, source: int) -> None:
        """Send and receive at once, in one call."""
        self._ranks.Sendrecv(_byte_array(message), to, 0, _byte_array(out), source, 0)

    def close(self) -> None:
        """End MPI on all ranks.

        mpirun takes a rank's exit without this for a crash, and kills the other ranks.
        """
        self._ranks.Free()
        self._mpi.Finalize()


def _byte_array(tensor: torch.Tensor) -> Any:
    """Return the tensor's memory as bytes for numpy, which has no bf16."""
    return tensor.view(torch.uint8).numpy()


def why_no_mpi(world: World) -> str | None:
    """Return one line on missing requirements; None when all are met.

    MPI needs mpi4py, and a launcher that tells MPI about its ranks.
    """
    if reason := why_not_all_ranks(world):
        return reason
    if find_spec("mpi4py") is None:
        return f"mpi4py is not installed; {INSTALL_HINT}"
    if world.launcher not in ("mpirun", "srun"):
        return f"MPI ranks are started by mpirun or srun, and these by {world.launcher}; {START_COMMAND}"
    if world.generation > 1:
        return "MPI starts once in a run, and a lost rank had all of them started anew; run the rest with --resume"
    return None


def connect_mpi(world: World) -> Communicator:
    """Start MPI in this process.

    Raises:
        UserError: there is no MPI library, or its ranks differ from the launcher's.
    """
    importlib.import_module("mpi4py").rc(thread_level="funneled")  # only one thread of a rank calls MPI
    try:
        mpi = importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"mpi4py finds no MPI library ({' '.join(str(error).split())[:150]}); {INSTALL_HINT}"
        ) from error
    found = mpi.COMM_WORLD.Get_rank(), mpi.COMM_WORLD.Get_size()
    if found != (world.rank, world.ranks):
        mpi.Finalize()
        raise UserError(
            f"MPI calls this rank {found[0]} of {found[1]}, its launcher rank {world.rank} of {world.ranks}; "
            f"start it with the mpirun of the MPI that mpi4py loads: {START_COMMAND}"
        )
    return MpiCommunicator(world, mpi)


MPI = Backend(
    name="mpi",
    methods=frozenset({"all_reduce", "all_gather", "reduce_scatter", "broadcast", "send", "exchange"}),
    why_not=why_no_mpi,
    connect=connect_mpi,
    graph=False,
    device_kinds=frozenset({"cpu"}),
    dtypes=("fp32",),  # the standard has sums of neither 16-bit format
)
