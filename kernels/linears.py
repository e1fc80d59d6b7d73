"""All linears, and which of them serves a token count."""

from kernels.cublaslt import CUBLASLT_LINEAR
from kernels.cuda_gemv import CUDA_GEMV
from kernels.gemm import TRITON_GEMM
from kernels.kernel import Kernel
from kernels.linear import TORCH_LINEAR
from kernels.pick import pick
from kernels.skinny import TRITON_SKINNY, TRITON_SKINNY_PDL

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
    return pick(LINEARS, implementation, tokens)


def serves(implementation: str, tokens: int) -> bool:
    """Whether a linear of `implementation` is made for `tokens` tokens."""
    return any(kernel.implementation == implementation and tokens in kernel.tokens for kernel in LINEARS)
