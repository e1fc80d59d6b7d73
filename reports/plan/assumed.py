"""What nobody has measured and a step cannot do without: each figure with its range and its reason.

They are said in every plan, and every part that rests on one says so. A file that has the figure takes its place.
"""

from typing import NamedTuple


class Assumed(NamedTuple):
    """A figure, its range, and where it comes from."""

    value: float
    low: float
    high: float
    why: str


HOP_SECONDS = Assumed(
    10e-6, 5e-6, 20e-6, "a message between two GPUs of one host; published tables hold none between a pair"
)
"""Before the first byte of a hop arrives; its bytes go at the datasheet's rate on top."""
NODE_HOP_SECONDS = Assumed(20e-6, 10e-6, 40e-6, "a message between hosts: through two network cards and a switch")
NODE_BYTES_PER_SECOND = Assumed(50e9, 50e9, 50e9, "a 400 Gbit/s network card for each GPU, in one direction")
KERNEL_SECONDS = Assumed(
    2e-6, 0.0, 2e-6, "an elementwise kernel in a graph beyond its bytes; none where it is fused into a neighbour"
)
KERNELS_A_LAYER = 4
"""Two norms with the residual, rotary embedding, SwiGLU."""
WORKSPACE_BYTES = Assumed(
    3 * 2.0**30, 3 * 2.0**30, 3 * 2.0**30, "context, libraries' workspaces, buffers of collectives and of graphs"
)


def every() -> dict[str, Assumed]:
    """All of them, by name."""
    return {name: one for name, one in globals().items() if isinstance(one, Assumed)}
