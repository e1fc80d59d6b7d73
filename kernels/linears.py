"""All linears, and which of them serves a token count."""

from kernels.gemm import TRITON_GEMM
from kernels.gemv import TRITON_GEMV
from kernels.kernel import Kernel
from kernels.linear import TORCH_LINEAR
from specs.errors import UserError

LINEARS = (TORCH_LINEAR, TRITON_GEMV, TRITON_GEMM)


def linear(implementation: str, tokens: int) -> Kernel:
    """The linear of `implementation` that is made for `tokens` tokens.

    Raises:
        UserError: no such implementation, or none of its kernels takes that many tokens.
    """
    own = [kernel for kernel in LINEARS if kernel.implementation == implementation]
    if not own:
        known = ", ".join(dict.fromkeys(kernel.implementation for kernel in LINEARS))
        raise UserError(f"unknown implementation {implementation!r} of a linear; choose one of {known}")
    fitting = next((kernel for kernel in own if tokens in kernel.tokens), None)
    if fitting is None:
        raise UserError(f"no {implementation} linear takes {tokens} tokens; ask for 1 or more")
    return fitting
