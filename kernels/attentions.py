"""All attention kernels: of decode, one query a sequence over its cache, and of prefill, a whole prompt."""

from collections.abc import Sequence

from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION
from kernels.kernel import Kernel
from kernels.library_attention import FLASH_ATTN_DECODE, FLASHINFER_DECODE
from kernels.prefill_attention import FLASH_ATTN_PREFILL, TORCH_PREFILL_ATTENTION
from kernels.torch_attention import TORCH_DECODE_ATTENTION

DECODE = (
    TORCH_DECODE_ATTENTION,
    TRITON_DECODE_ATTENTION,
    TRITON_PAGED_ATTENTION,
    FLASH_ATTN_DECODE,
    FLASHINFER_DECODE,
)
PREFILL = (TORCH_PREFILL_ATTENTION, FLASH_ATTN_PREFILL)


def pick(kernels: Sequence[Kernel], implementation: str) -> Kernel:
    """The one of `kernels` that is by `implementation`, which must be among them."""
    return next(kernel for kernel in kernels if kernel.implementation == implementation)
