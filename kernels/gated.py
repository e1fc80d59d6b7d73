"""The SwiGLU epilogue of a linear: rows of W in which gate and up alternate give silu(gate) · up.

Row 2i of W is the gate of feature i and row 2i + 1 its up projection, which an engine arranges once, when it loads the
weights: so both halves of a feature are in the tile of one program, and what it stores is half as wide.
"""

from kernels.triton_utils import tl, triton


@triton.jit
def gated(total: tl.tensor, ROWS: tl.constexpr, TOKENS: tl.constexpr) -> tl.tensor:
    """[ROWS, TOKENS] of alternating gates and ups to [ROWS / 2, TOKENS], in fp32."""
    gate, up = tl.split(tl.permute(tl.reshape(total, [ROWS // 2, 2, TOKENS]), (0, 2, 1)))
    return gate * tl.sigmoid(gate) * up
