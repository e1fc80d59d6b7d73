"""All linears, and which of them serves a token count."""

from kernels.cublaslt import CUBLASLT_LINEAR
from kernels.cuda_gemv import CUDA_GEMV
from kernels.gemm import TRITON_GEMM
from kernels.kernel import Kernel
from kernels.linear import TORCH_LINEAR
from kernels.skinny import TRITON_SKINNY, TRITON_SKINNY_PDL
from specs.errors import UserError

LINEARS = (
    TORCH_LINEAR,
    CUBLASLT_LINEAR,
    TRITON_SKINNY,
    TRITON_GEMM,
    TRITON_SKINNY_PDL,
    CUDA_GEMV,
)


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
        taken = "; ".join(f"{kernel.name} takes {_span(kernel.tokens)}" for kernel in own)
        raise UserError(f"no {implementation} linear takes {tokens} tokens: {taken}")
    return fitting


def serves(implementation: str, tokens: int) -> bool:
    """Whether a linear of `implementation` is made for `tokens` tokens."""
    return any(kernel.implementation == implementation and tokens in kernel.tokens for kernel in LINEARS)


def _span(tokens: range) -> str:
    return f"{tokens[0]} to {tokens[-1]}" if len(tokens) < 2**20 else f"{tokens[0]} or more"
