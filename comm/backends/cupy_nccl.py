"""NCCL called directly through CuPy, without a process group or a watchdog.

Each collective is one call into the library. All-reduce runs out of place, which torch.distributed does not offer: the
message stays, and calls can follow one another without growing values.
"""

import warnings
from importlib.util import find_spec
from itertools import count
from typing import Any

import torch
from torch.distributed.distributed_c10d import _get_default_store

from comm.backend import Backend, Communicator, World
from comm.backends.torch_distributed import first_line, why_no_gpus, why_no_shared_gpu, why_not_all_ranks
from specs.errors import UserError

NCCL_DTYPES = {torch.float16: 6, torch.float32: 7, torch.bfloat16: 9}
"""ncclDataType_t by torch dtype; older CuPy has no name for bfloat16."""
NCCL_SUM = 0
"""Value of ncclSum."""
UNIQUE_ID_KEY = "cupy-nccl unique id {}"
_connections = count()


class CupyNcclCommunicator(Communicator):
    """An NCCL communicator on torch's current stream; graphs capture its calls.

    Args:
        world: the ranks.
        nccl: the module `cupy.cuda.nccl`.
        unique_id: id that rank 0 got for all ranks.
    """

    def __init__(self, world: World, nccl: Any, unique_id: Any) -> None:
        super().__init__(world)
        self._nccl = nccl
        self._token = torch.zeros(1, device=world.device)  # created first, since NCCL takes the current device
        self._ranks = nccl.NcclCommunicator(world.ranks, unique_id, world.rank)

    def barrier(self) -> None:
        """Run an all-reduce of four bytes."""
        self.all_reduce(self._token, self._token)

    def all_reduce(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Run an all-reduce out of place."""
        self._ranks.allReduce(*_pointers(message, out), *_count_and_dtype(message), NCCL_SUM, _current_stream())

    def all_gather(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Run an all-gather; NCCL counts the elements that a rank sends."""
        self._ranks.allGather(*_pointers(message, out), *_count_and_dtype(message), _current_stream())

    def reduce_scatter(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Run a reduce-scatter; NCCL counts the elements that a rank receives."""
        self._ranks.reduceScatter(*_pointers(message, out), *_count_and_dtype(out), NCCL_SUM, _current_stream())

    def broadcast(self, message: torch.Tensor, root: int) -> None:
        """Run a broadcast in place."""
        self._ranks.broadcast(*_pointers(message, message), *_count_and_dtype(message), root, _current_stream())

    def send(self, message: torch.Tensor, to: int) -> None:
        """Send to rank `to`."""
        self._ranks.send(message.data_ptr(), *_count_and_dtype(message), to, _current_stream())

    def recv(self, out: torch.Tensor, source: int) -> None:
        """Receive from rank `source`."""
        self._ranks.recv(out.data_ptr(), *_count_and_dtype(out), source, _current_stream())

    def exchange(self, message: torch.Tensor, to: int, out: torch.Tensor, source: int) -> None:
        """Send and receive in one group, so that neither waits for the other."""
        self._nccl.groupStart()
        self.send(message, to)
        self.recv(out, source)
        self._nccl.groupEnd()

    def close(self) -> None:
        """Abort without waiting for the other ranks, one of which may be lost."""
        self._ranks.abort()


def _pointers(message: torch.Tensor, out: torch.Tensor) -> tuple[int, int]:
    return message.data_ptr(), out.data_ptr()


def _count_and_dtype(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.numel(), NCCL_DTYPES[tensor.dtype]


def _current_stream() -> int:
    return int(torch.cuda.current_stream().cuda_stream)


def load_nccl() -> Any:
    """Return `cupy.cuda.nccl`; None where CuPy finds no NCCL.

    CuPy's long warning about a missing NCCL is suppressed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cupy.cuda import nccl
    return nccl if nccl.available else None


def why_no_cupy_nccl(world: World) -> str | None:
    """Return one line on missing requirements; None when all are met.

    They are GPUs, CuPy, and an NCCL that CuPy finds: torch's own where both use the same CUDA.
    """
    if reason := why_no_gpus(world) or why_not_all_ranks(world):
        return reason
    extra = f"cu{(torch.version.cuda or '13').split('.')[0]}"
    if torch.version.hip:
        return "CuPy is set up here for CUDA only; rccl is the same library through torch"
    if find_spec("cupy") is None:
        return f"CuPy is not installed; `pip install -c constraints.txt .[{extra}]`"
    if (nccl := load_nccl()) is None:
        return f"CuPy finds no NCCL; `pip install nvidia-nccl-{extra}`"
    return why_no_shared_gpu(world, nccl.get_version())


def connect_cupy_nccl(world: World) -> Communicator:
    """Connect all ranks; rank 0 shares its unique id through torch's default store.

    Raises:
        UserError: NCCL does not connect the ranks.
    """
    nccl, store, key = load_nccl(), _get_default_store(), UNIQUE_ID_KEY.format(next(_connections))
    if world.rank == 0:
        store.set(key, encode_unique_id(nccl.get_unique_id()))
    try:
        communicator = CupyNcclCommunicator(world, nccl, decode_unique_id(store.get(key).decode()))
        communicator.barrier()
        torch.cuda.synchronize(world.device)
    except RuntimeError as error:  # NcclError is one, and so is a store's timeout
        raise UserError(f"cupy-nccl does not start: {first_line(error)}; NCCL_DEBUG=WARN says more") from error
    return communicator


def encode_unique_id(unique_id: Any) -> str:
    """Return a unique id as text for the store.

    CuPy 14 returns bytes, older versions a tuple of signed chars.
    """
    return bytes(one & 0xFF for one in unique_id).hex()


def decode_unique_id(text: str) -> Any:
    """Return a unique id in the form that this CuPy takes."""
    import cupy

    unique_id = bytes.fromhex(text)
    if int(cupy.__version__.split(".")[0]) >= 14:
        return unique_id
    return tuple(one - 256 if one > 127 else one for one in unique_id)


CUPY_NCCL = Backend(
    name="cupy-nccl",
    methods=frozenset({"all_reduce", "all_gather", "reduce_scatter", "broadcast", "send", "exchange"}),
    why_not=why_no_cupy_nccl,
    connect=connect_cupy_nccl,
)
