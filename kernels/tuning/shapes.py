"""Shapes as the search sees them: decode attention, and linears."""

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
    """Sizes of one call of decode attention; `page_size` is 0 for a contiguous cache."""

    dtype: str
    batch: int
    context: int
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int = 0

    @property
    def kernel(self) -> Kernel:
        """Our kernel, over pages or a contiguous cache."""
        return TRITON_PAGED_ATTENTION if self.page_size else TRITON_DECODE_ATTENTION

    @property
    def streamed_bytes(self) -> int:
        """Bytes of K and V; a last page that is not full counts whole."""
        tokens = -(-self.context // self.page_size) * self.page_size if self.page_size else self.context
        return 2 * self.batch * tokens * self.kv_heads * self.head_dim * ITEMSIZE[self.dtype]

    @property
    def pairs(self) -> int:
        """Pairs of a sequence and a kv head, each a stream of its own."""
        return self.batch * self.kv_heads

    @property
    def group(self) -> int:
        """Query heads of a kv head."""
        return self.heads // self.kv_heads

    def inputs(self, source: TensorSource) -> Inputs:
        """Return the tensors of kernels/attention.py."""
        sizes = self._asdict()
        if not self.page_size:
            del sizes["page_size"]
        return self.kernel.inputs(source, **sizes)

    def rejection(self, config: SplitConfig, arch: str) -> str:
        """Return a reason where the configuration spills; empty elsewhere.

        Few codes serve all shapes, so each is compiled once for this check.
        """
        code = config._replace(
            split=(1, MERGE_FAN_IN, MERGE_FAN_IN * MERGE_FAN_IN)[config.merge_levels]
        )  # all splits of one merge level are one code
        spilled = _spill_bytes(code, self.dtype, self.group, self.head_dim, self.page_size, arch)
        return f"spills {spilled} bytes a thread" if spilled else ""

    def workspace_sizes(self, config: SplitConfig) -> tuple[int, int]:
        """Return the sizes for partial results and arrival counters."""
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


# Candidate cuts of decode attention for a shape.

CANDIDATE_BLOCKS = (32, 64, 128)
CANDIDATE_WARPS = (2, 4, 8)
CANDIDATE_STAGES = (2, 3, 4)


def split_candidates(arch: Arch, sms: int, shape: AttentionShape) -> list[SplitConfig]:
    """Return the rule's cut, then other cuts by distance from it.

    They have all tiles that fit a program, each with half, as many and twice the rule's parts.
    """
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
    """Return the shared memory of a program.

    It has a tile of K and V less than there are stages, its queries and their weights.
    """
    width = 2 * config.block * shape.head_dim * (config.stages - 1) + padded_rows(shape.group) * (
        shape.head_dim + config.block
    )
    return width * ITEMSIZE[shape.dtype]


class LinearShape(NamedTuple):
    """Sizes of y[tokens, n] = x[tokens, k] · W[n, k]ᵀ.

    The skinny linear serves up to 64 tokens, the GEMM more.
    """

    dtype: str
    tokens: int
    n: int
    k: int

    @property
    def kernel(self) -> Kernel:
        """The baseline, whose inputs and reference hold for every linear."""
        return TORCH_LINEAR

    @property
    def streamed_bytes(self) -> int:
        """Bytes of W."""
        return self.n * self.k * ITEMSIZE[self.dtype]

    def inputs(self, source: TensorSource) -> Inputs:
        """Return x[tokens, k], weight[n, k] and out[tokens, n]."""
        return TORCH_LINEAR.inputs(source, **self._asdict())

    def rejection(self, config: LinearConfig, arch: str) -> str:  # noqa: ARG002
        """Return no reason: to compile each of so many once more would halve the trials."""
        return ""

    def workspace_sizes(self, config: LinearConfig) -> tuple[int, int]:
        """Return the sizes for partial sums, and a counter for each part of a tile."""
        return config.partial_elements(self.n, self.tokens), config.programs(self.n, self.tokens)

    def launch(self, config: LinearConfig, scratch: Workspace, **inputs: Any) -> None:
        """Run a configuration of the kernel that serves so many tokens."""
        kernel = skinny if self.tokens <= SKINNY_MAX_TOKENS else gemm
        kernel.launch(**inputs, config=config, scratch=scratch)


class TunedShape(Protocol):
    """Interface of a shape for the search: a NamedTuple of a dtype and sizes.

    Attributes:
        kernel: kernel whose inputs, reference and tolerance hold.
        streamed_bytes: weights or caches that one call reads.
    """

    @property
    def dtype(self) -> str:
        """Dtype of the operands."""

    @property
    def kernel(self) -> Kernel:
        """Kernel whose inputs, reference and tolerance hold."""

    @property
    def streamed_bytes(self) -> int:
        """Bytes of weights or caches that one call reads."""

    def inputs(self, source: TensorSource) -> Inputs:
        """Return the tensors of one call."""

    def rejection(self, config: Any, arch: str) -> str:
        """Return why the compiler rules a configuration out before a trial; else empty."""

    def workspace_sizes(self, config: Any) -> tuple[int, int]:
        """Return the fp32 partial results and counters that one call takes."""

    def launch(self, config: Any, scratch: Workspace, **inputs: Any) -> None:
        """Run a configuration on tensors from `inputs`."""

    def _asdict(self) -> dict[str, Any]: ...
