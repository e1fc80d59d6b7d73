"""The linears that the counters and the clocks are checked at: shards of Llama-3-70B, bf16, in decode."""

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
"""(n, k) by name; `small` is next to nothing but a launch."""


@dataclass(frozen=True)
class GateCase:
    """One linear by one implementation."""

    shard: str
    tokens: int
    implementation: str

    @property
    def name(self) -> str:
        """As figures are filed."""
        return f"{self.shard}-m{self.tokens}-{self.implementation}"

    @property
    def shape(self) -> dict[str, int]:
        """What a kernel is called with."""
        n, k = SHARD_SHAPES[self.shard]
        return {"tokens": self.tokens, "n": n, "k": k}

    @property
    def weight_bytes(self) -> int:
        """W[n, k], which one call has to read from memory."""
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
"""From next to nothing but a launch to far above 200 us."""

READ_CASES = tuple(
    GateCase(shard, tokens, implementation)
    for shard in ("o-tp8", "qkv-tp4", "down-tp8", "gate_up-tp8")
    for tokens in (1, 16)
    for implementation in ("triton", "cuda", "torch", "cublaslt")
    if tokens == 1 or implementation != "cuda"
)
"""Where the bytes read are judged: each is far beyond the 4 MB that a call reads and writes besides its weights."""

PROFILED_CASES = tuple(dict.fromkeys((*READ_CASES, *CLOCK_CASES)))
"""What ncu sees; a case's place in here is the number of its mark."""


def benchmark_name(case: str, mode: str, calls: int) -> str:
    """A case's name in NVBench: with the mode, and the calls that one launch stands for."""
    return f"{case}.{mode}.{calls}"
