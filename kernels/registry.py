"""All linears and attention kernels, and the linear for a token count."""

from collections.abc import Sequence

from kernels.attention import (
    FLASH_ATTN_DECODE,
    FLASH_ATTN_PREFILL,
    FLASHINFER_DECODE,
    TORCH_DECODE_ATTENTION,
    TORCH_PREFILL_ATTENTION,
)
from kernels.cublaslt import CUBLASLT_LINEAR
from kernels.cuda_gemv import CUDA_GEMV
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION
from kernels.gemm import TRITON_GEMM
from kernels.kernel import Kernel, select_kernel
from kernels.linear import TORCH_LINEAR
from kernels.skinny import TRITON_SKINNY, TRITON_SKINNY_PDL

# Attention kernels: decode has one query per sequence over its cache, prefill has a whole prompt.

DECODE_ATTENTION = (
    TORCH_DECODE_ATTENTION,
    TRITON_DECODE_ATTENTION,
    TRITON_PAGED_ATTENTION,
    FLASH_ATTN_DECODE,
    FLASHINFER_DECODE,
)
PREFILL_ATTENTION = (TORCH_PREFILL_ATTENTION, FLASH_ATTN_PREFILL)


def find_kernel(kernels: Sequence[Kernel], implementation: str) -> Kernel:
    """Return the kernel of `implementation`, which must be among `kernels`."""
    return next(kernel for kernel in kernels if kernel.implementation == implementation)


LINEARS = (
    TORCH_LINEAR,
    CUBLASLT_LINEAR,
    TRITON_SKINNY,
    TRITON_GEMM,
    TRITON_SKINNY_PDL,
    CUDA_GEMV,
)


def select_linear(implementation: str, tokens: int) -> Kernel:
    """Return the linear of `implementation` for `tokens` tokens.

    Raises:
        UserError: no such implementation, or none of its kernels takes that many tokens.
    """
    return select_kernel(LINEARS, implementation, tokens)


def has_linear(implementation: str, tokens: int) -> bool:
    """Return whether `implementation` has a linear for `tokens` tokens."""
    return any(kernel.implementation == implementation and tokens in kernel.tokens for kernel in LINEARS)
