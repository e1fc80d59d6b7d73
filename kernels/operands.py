"""The operands of our own linears: their types, and what they are asked for before memory is touched."""

from collections.abc import Iterable
from typing import NamedTuple

import torch

from kernels.kernel import DTYPES
from specs.errors import UserError


class Sizes(NamedTuple):
    """Of y[tokens, n] = x[tokens, k] · W[n, k]ᵀ."""

    tokens: int
    n: int
    k: int


def check_operands(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, *, gated: bool = False) -> Sizes:
    """Refuse what would read or write outside of x[tokens, k], weight[n, k] and out[tokens, n]; gated: n / 2.

    Raises:
        UserError: an operand is not contiguous, or shapes or dtypes do not belong together.
    """
    for name, tensor in {"x": x, "weight": weight, "out": out}.items():
        if tensor.dim() != 2:
            raise UserError(f"{name} has shape {tuple(tensor.shape)}; x, weight and out have two dimensions")
        if not tensor.is_contiguous():
            raise UserError(
                f"{name} has shape {tuple(tensor.shape)} and strides {tensor.stride()}; our linears take rows that "
                f"follow each other without gaps: pass {name}.contiguous()"
            )
    parts = 2 if gated else 1
    expected = (x.shape[0], weight.shape[0] / parts)  # odd rows of gate and up fit no out
    if x.shape[1] != weight.shape[1] or out.shape != expected:
        raise UserError(
            f"x{list(x.shape)}, weight{list(weight.shape)} and out{list(out.shape)} do not belong together; "
            f"they must be x[tokens, k], weight[n, k] and out[tokens, {'n / 2' if gated else 'n'}]"
        )
    if not x.dtype == weight.dtype == out.dtype:
        raise UserError(f"x is {x.dtype}, weight {weight.dtype} and out {out.dtype}; convert them to one dtype")
    return Sizes(x.shape[0], weight.shape[0], weight.shape[1])


def dtype_of(tensor: torch.Tensor, kernel: str, known: Iterable[str] = DTYPES) -> str:
    """Short name of a tensor's dtype.

    Raises:
        UserError: `kernel` takes none such.
    """
    name = next((name for name in known if DTYPES[name] == tensor.dtype), None)
    if name is None:
        raise UserError(f"operands are {tensor.dtype}; {kernel} takes {', '.join(known)}")
    return name


def linear_signature(dtype: str) -> dict[str, str]:
    """Argument names and Triton types that every Triton linear has, constexprs left out."""
    pointer = f"*{dtype}"
    return {"x": pointer, "weight": pointer, "out": pointer, "tokens": "i32", "n": "i32", "k": "i32"}
