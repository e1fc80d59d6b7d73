"""Decode attention as the search sees it, over a contiguous cache or over pages."""

from functools import cache
from itertools import product
from math import ceil
from typing import Any, NamedTuple, Protocol

from kernels import gemm, skinny
from kernels.compile import compile_variant
from kernels.configs.attention import MERGE_FAN_IN, SplitConfig, choose_split, rule_split_config
from kernels.configs.config import SKINNY_MAX_TOKENS, LinearConfig
from kernels.configs.space import config_distance
from kernels.decode_attention import (
    TRITON_DECODE_ATTENTION,
    TRITON_PAGED_ATTENTION,
    attention_variant,
    launch,
    padded_rows,
    workspace_sizes,
)
from kernels.kernel import Inputs, Kernel, TensorSource
from kernels.linear import TORCH_LINEAR
from kernels.operands import Workspace
from specs.gpus import Arch
from specs.units import ITEMSIZE


class AttentionShape(NamedTuple):
    """Of one call; `page_size` is 0 for a contiguous cache."""

    dtype: str
    batch: int
    context: int
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int = 0

    @property
    def kernel(self) -> Kernel:
        """Ours, over pages or not."""
        return TRITON_PAGED_ATTENTION if self.page_size else TRITON_DECODE_ATTENTION

    @property
    def streamed_bytes(self) -> int:
        """K and V; a last page that is not full counts whole."""
        tokens = -(-self.context // self.page_size) * self.page_size if self.page_size else self.context
        return 2 * self.batch * tokens * self.kv_heads * self.head_dim * ITEMSIZE[self.dtype]

    @property
    def pairs(self) -> int:
        """Of a sequence and a kv head, each of which is a stream of its own."""
        return self.batch * self.kv_heads

    @property
    def group(self) -> int:
        """Query heads of a kv head."""
        return self.heads // self.kv_heads

    def inputs(self, source: TensorSource) -> Inputs:
        """As kernels/attention.py draws them."""
        sizes = self._asdict()
        if not self.page_size:
            del sizes["page_size"]
        return self.kernel.inputs(source, **sizes)

    def rejection(self, config: SplitConfig, arch: str) -> str:
        """Where it spills: few codes serve all shapes, so that each is compiled for this once."""
        code = config._replace(
            split=(1, MERGE_FAN_IN, MERGE_FAN_IN * MERGE_FAN_IN)[config.merge_levels]
        )  # all of so many levels are one code
        spilled = _spill_bytes(code, self.dtype, self.group, self.head_dim, self.page_size, arch)
        return f"spills {spilled} bytes a thread" if spilled else ""

    def workspace_sizes(self, config: SplitConfig) -> tuple[int, int]:
        """Results of parts, and counters of who has arrived."""
        return workspace_sizes(config, pairs=self.pairs, group=self.group, head_dim=self.head_dim)

    def launch(self, config: SplitConfig, scratch: Workspace, **inputs: Any) -> None:
        """Run a cut."""
        caches = ("key_pages", "value_pages") if self.page_size else ("key", "value")
        key, value = (inputs.pop(name) for name in caches)
        launch(**inputs, key=key, value=value, config=config, scratch=scratch)


@cache
def _spill_bytes(config: SplitConfig, dtype: str, group: int, head_dim: int, page: int, arch: str) -> int:
    return compile_variant(
        attention_variant(config, dtype, group=group, head_dim=head_dim, page=page), arch
    ).spill_bytes


# The cuts of decode attention that are worth a try for a shape, those next to the rule's first.

CANDIDATE_BLOCKS = (32, 64, 128)
CANDIDATE_WARPS = (2, 4, 8)
CANDIDATE_STAGES = (2, 3, 4)


def split_candidates(arch: Arch, sms: int, shape: AttentionShape) -> list[SplitConfig]:
    """The rule's cut, then all tiles that a program has room for, each in half, as many and twice the rule's parts."""
    first = rule_split_config(arch, sms, shape.dtype, pairs=shape.pairs, context=shape.context, head_dim=shape.head_dim)
    found = [first]
    for block, warps, stages in product(CANDIDATE_BLOCKS, CANDIDATE_WARPS, CANDIDATE_STAGES):
        steps = ceil(shape.context / block)
        by_rule = choose_split(shape.pairs, steps, sms)
        around = (max(1, by_rule // 2), by_rule, min(2 * by_rule, steps, MERGE_FAN_IN * MERGE_FAN_IN))
        found += [SplitConfig(block, warps, stages, parts) for parts in around]
    fitting = [cut for cut in found if split_shared_bytes(cut, shape) <= arch.shared_bytes_per_block]
    return sorted(dict.fromkeys(fitting), key=lambda cut: config_distance(first, cut))


def split_shared_bytes(config: SplitConfig, shape: AttentionShape) -> int:
    """Shared memory of a program: a tile of K and V less than there are stages, its queries and their weights."""
    width = 2 * config.block * shape.head_dim * (config.stages - 1) + padded_rows(shape.group) * (
        shape.head_dim + config.block
    )
    return width * ITEMSIZE[shape.dtype]


# A linear as the search sees it: up to 64 tokens the skinny linear, beyond it the GEMM.


class LinearShape(NamedTuple):
    """Of y[tokens, n] = x[tokens, k] · W[n, k]ᵀ."""

    dtype: str
    tokens: int
    n: int
    k: int

    @property
    def kernel(self) -> Kernel:
        """The baseline, whose inputs and reference are those of every linear."""
        return TORCH_LINEAR

    @property
    def streamed_bytes(self) -> int:
        """W."""
        return self.n * self.k * ITEMSIZE[self.dtype]

    def inputs(self, source: TensorSource) -> Inputs:
        """x[tokens, k], weight[n, k] and out[tokens, n]."""
        return TORCH_LINEAR.inputs(source, **self._asdict())

    def rejection(self, config: LinearConfig, arch: str) -> str:  # noqa: ARG002 - of any configuration on any architecture
        """Nothing: there are so many that to compile each once more would cost half of the tries."""
        return ""

    def workspace_sizes(self, config: LinearConfig) -> tuple[int, int]:
        """Partial sums, and a counter for each part of a tile."""
        return config.partial_elements(self.n, self.tokens), config.programs(self.n, self.tokens)

    def launch(self, config: LinearConfig, scratch: Workspace, **inputs: Any) -> None:
        """Run a configuration of the kernel that serves so many tokens."""
        kernel = skinny if self.tokens <= SKINNY_MAX_TOKENS else gemm
        kernel.launch(**inputs, config=config, scratch=scratch)


# What the search has to know of a shape, whichever kernel serves it.


class TunedShape(Protocol):
    """A NamedTuple of a dtype and sizes, for which a configuration is searched.

    Attributes:
        kernel: whose inputs, reference and tolerance hold.
        streamed_bytes: weights or caches that one call reads.
    """

    @property
    def dtype(self) -> str:
        """Of the operands."""

    @property
    def kernel(self) -> Kernel:
        """See above."""

    @property
    def streamed_bytes(self) -> int:
        """See above."""

    def inputs(self, source: TensorSource) -> Inputs:
        """The tensors of one call."""

    def rejection(self, config: Any, arch: str) -> str:
        """Why the compiler rules a configuration out before it is tried; empty where it does not."""

    def workspace_sizes(self, config: Any) -> tuple[int, int]:
        """Fp32 partial results and counters that one call takes of its workspace."""

    def launch(self, config: Any, scratch: Workspace, **inputs: Any) -> None:
        """Run a configuration on tensors from `inputs`."""

    def _asdict(self) -> dict[str, Any]: ...
