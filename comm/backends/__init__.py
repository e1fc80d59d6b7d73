"""Libraries that carry messages: requirements and start-up."""

from comm.backend import Backend
from comm.backends.cupy_nccl import CUPY_NCCL
from comm.backends.mpi import MPI
from comm.backends.symmetric import PEER, SYMM_MULTIMEM, SYMM_ONE_SHOT, SYMM_TWO_SHOT, TRITON_ONE_SHOT
from comm.backends.torch_distributed import GLOO, NCCL

ALL_BACKENDS = (GLOO, MPI, NCCL, CUPY_NCCL, SYMM_ONE_SHOT, SYMM_TWO_SHOT, SYMM_MULTIMEM, TRITON_ONE_SHOT, PEER)
BACKENDS: dict[str, Backend] = {row.name: row for row in ALL_BACKENDS}
"""All backends by name; a row in `ALL_BACKENDS` adds a backend."""
