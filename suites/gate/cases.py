"""The linears that the counters and the clocks are checked at: shards of Llama-3-70B, bf16, in decode."""

from dataclasses import dataclass

DTYPE = "bf16"
ITEMSIZE_BYTES = 2

SHARDS = {
    "small": (1024, 1024),
    "o-tp8": (8192, 1024),
    "qkv-tp4": (2560, 8192),
    "down-tp8": (8192, 3584),
    "gate_up-tp8": (7168, 8192),
    "gate_up-tp2": (28672, 8192),
    "gate_up-tp1": (57344, 8192),
}
"""(n, k): hidden 8192, intermediate 28672, 64 heads and 8 kv_heads of 128; `small` is next to nothing but a launch."""


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
        n, k = SHARDS[self.shard]
        return {"tokens": self.tokens, "n": n, "k": k}

    @property
    def weight_bytes(self) -> int:
        """W[n, k], which one call has to read from memory."""
        n, k = SHARDS[self.shard]
        return n * k * ITEMSIZE_BYTES


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

PROFILED = tuple(dict.fromkeys((*READ_CASES, *CLOCK_CASES)))
"""What ncu sees; a case's place in here is the number of its mark."""
