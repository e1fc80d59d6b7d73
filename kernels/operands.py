"""Operands of our own kernels: checks before memory is touched, and workspaces."""

from collections.abc import Iterable
from functools import cache
from itertools import count
from typing import NamedTuple

import torch

from kernels.kernel import TORCH_DTYPES
from specs.errors import UserError


class LinearSizes(NamedTuple):
    """Sizes of y[tokens, n] = x[tokens, k] · W[n, k]ᵀ."""

    tokens: int
    n: int
    k: int


def check_operands(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, swiglu: bool = False) -> LinearSizes:
    """Refuse accesses outside of x[tokens, k], weight[n, k] and out[tokens, n].

    With swiglu rows of W are gates and ups, and out[tokens, n / 2] is half as wide.

    Raises:
        UserError: an operand is not contiguous, shapes or dtypes do not match, or a gate has no up.
    """
    operands = {"x": x, "weight": weight, "out": out}
    for name, tensor in operands.items():
        if tensor.dim() != 2:
            raise UserError(f"{name} has shape {tuple(tensor.shape)}; x, weight and out have two dimensions")
    check_contiguous(**operands)
    tokens, (n, k) = x.shape[0], weight.shape
    if swiglu and n % 2:
        raise UserError(f"weight has {n} rows; SwiGLU takes a gate and an up for each feature: an even number of rows")
    if x.shape[1] != k or out.shape != (tokens, n // 2 if swiglu else n):
        raise shape_error(f"x[tokens, k], weight[n, k] and out[tokens, {'n / 2' if swiglu else 'n'}]", **operands)
    return LinearSizes(tokens, n, k)


def check_contiguous(**operands: torch.Tensor) -> None:
    """Refuse operands with gaps between their rows, or of several dtypes.

    Raises:
        UserError: an operand is not contiguous, or dtypes differ.
    """
    for name, tensor in operands.items():
        if not tensor.is_contiguous():
            raise UserError(
                f"{name} has shape {tuple(tensor.shape)} and strides {tensor.stride()}; our kernels take rows that "
                f"follow each other without gaps: pass {name}.contiguous()"
            )
    if len({tensor.dtype for tensor in operands.values()}) > 1:
        kinds = _join_words(f"{name} {tensor.dtype}" for name, tensor in operands.items())
        raise UserError(f"{kinds} are of several dtypes; convert them to one dtype")


def shape_error(expected: str, **operands: torch.Tensor) -> UserError:
    """Return the error for mismatched shapes; `expected` gives the right shapes."""
    found = _join_words(f"{name}{list(tensor.shape)}" for name, tensor in operands.items())
    return UserError(f"{found} do not belong together; they must be {expected}")


def _join_words(words: Iterable[str]) -> str:
    *ahead, last = words
    return f"{', '.join(ahead)} and {last}"


def dtype_name(tensor: torch.Tensor, kernel: str, known: Iterable[str] = TORCH_DTYPES) -> str:
    """Return the short name of a tensor's dtype.

    Raises:
        UserError: `kernel` does not take this dtype.
    """
    name = next((name for name in known if TORCH_DTYPES[name] == tensor.dtype), None)
    if name is None:
        raise UserError(f"operands are {tensor.dtype}; {kernel} takes {', '.join(known)}")
    return name


def linear_signature(dtype: str) -> dict[str, str]:
    """Return argument names and Triton types common to all Triton linears.

    Constexprs are left out.
    """
    pointer = f"*{dtype}"
    return {"x": pointer, "weight": pointer, "out": pointer, "tokens": "i32", "n": "i32", "k": "i32"}


# Workspace of kernels that split a sum over programs: partial sums, and counters of arrived programs.

RING_LENGTH = 2
"""Workspaces in turn.

With dependent launch a call may begin while the previous call still runs.
"""


class Workspace:
    """Partial sums and arrival counters of one device, which grow with larger calls.

    A call leaves every counter at zero, so nothing has to be cleared between calls. Concurrent calls on several streams
    need a workspace each.

    Attributes:
        partials: fp32, RING_LENGTH rows, in any state between calls.
        arrived: int32, RING_LENGTH rows of zeros between calls.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._turn = count()
        self._kept: list[torch.Tensor] = []  # graphs that were captured earlier still write there
        self.partials = torch.empty(RING_LENGTH, 0, dtype=torch.float32, device=device)
        self.arrived = torch.empty(RING_LENGTH, 0, dtype=torch.int32, device=device)

    def next_buffers(self, partials: int, counters: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next partials[≥ partials] and arrived[≥ counters] of the ring.

        Raises:
            UserError: the workspace must grow during graph capture, whose memory cannot keep zeros.
        """
        grows = self.partials.shape[1] < partials or self.arrived.shape[1] < counters
        if grows and self._device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise UserError("a first call at a size makes room for partial sums: call it once before the capture")
        if self.partials.shape[1] < partials:
            self._kept.append(self.partials)
            self.partials = torch.empty(
                RING_LENGTH, _aligned_elements(partials), dtype=torch.float32, device=self._device
            )
        if self.arrived.shape[1] < counters:
            self._kept.append(self.arrived)
            self.arrived = torch.zeros(RING_LENGTH, _aligned_elements(counters), dtype=torch.int32, device=self._device)
        slot = next(self._turn) % RING_LENGTH
        return self.partials[slot], self.arrived[slot]


def _aligned_elements(count: int) -> int:
    """Return the count of 4-byte elements rounded up to lines of 256 bytes.

    Every slot of the ring then starts at a line.
    """
    return -(-count // 64) * 64


@cache
def shared_workspace(device: torch.device) -> Workspace:
    """Return the workspace of calls on `device` that have none of their own."""
    return Workspace(device)
