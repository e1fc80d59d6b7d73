"""Linears that the counters and clocks are checked at: Llama-3-70B, bf16, decode."""

from dataclasses import dataclass

from specs.layer import DEFAULT_MODEL
from specs.models import find_model
from specs.parallel import Split
from specs.units import ITEMSIZE

DTYPE = "bf16"


def _shard_shape(layer: str, tp: int) -> tuple[int, int]:
    one = Split(find_model(DEFAULT_MODEL), tp).linear(layer)
    return one.n, one.k


SHARDED_LAYERS = (("o", 8), ("qkv", 4), ("down", 8), ("gate_up", 8), ("gate_up", 2), ("gate_up", 1))
SHARD_SHAPES = {"small": (1024, 1024), **{f"{layer}-tp{tp}": _shard_shape(layer, tp) for layer, tp in SHARDED_LAYERS}}
"""(n, k) by name; `small` costs little more than a launch."""


@dataclass(frozen=True)
class GateCase:
    """Linear of one shard by one implementation."""

    shard: str
    tokens: int
    implementation: str

    @property
    def name(self) -> str:
        """Name of the case in figures."""
        return f"{self.shard}-m{self.tokens}-{self.implementation}"

    @property
    def shape(self) -> dict[str, int]:
        """Arguments of a kernel: tokens, n, k."""
        n, k = SHARD_SHAPES[self.shard]
        return {"tokens": self.tokens, "n": n, "k": k}

    @property
    def weight_bytes(self) -> int:
        """Bytes of W[n, k], which one call has to read from memory."""
        n, k = SHARD_SHAPES[self.shard]
        return n * k * ITEMSIZE[DTYPE]


CLOCK_CASES = tuple(
    GateCase(shard, 1, implementation)
    for implementation, shards in {
        "triton": ("small", "o-tp8", "qkv-tp4", "gate_up-tp8", "gate_up-tp2", "gate_up-tp1"),
        "torch": ("o-tp8", "gate_up-tp8", "gate_up-tp1"),
    }.items()
    for shard in shards
)
"""Cases of the clocks, from little more than a launch to far above 200 us."""

READ_CASES = tuple(
    GateCase(shard, tokens, implementation)
    for shard in ("o-tp8", "qkv-tp4", "down-tp8", "gate_up-tp8")
    for tokens in (1, 16)
    for implementation in ("triton", "cuda", "torch", "cublaslt")
    if tokens == 1 or implementation != "cuda"
)
"""Cases whose read bytes are judged.

Each is far beyond the 4 MB that a call reads and writes besides its weights.
"""

PROFILED_CASES = tuple(dict.fromkeys((*READ_CASES, *CLOCK_CASES)))
"""Cases that ncu sees; a case's place, from 1, is the number of its mark."""


def benchmark_name(case: str, mode: str, calls: int) -> str:
    """Name of a case in NVBench: case, mode, and calls per launch."""
    return f"{case}.{mode}.{calls}"
