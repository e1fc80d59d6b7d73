"""Decode attention as the search sees it, over a contiguous cache or over pages."""

from functools import cache
from typing import Any, NamedTuple

from kernels.attention_cut import FAN, Cut
from kernels.compile import compile_variant
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION, launch, room, variant
from kernels.kernel import Draw, Inputs, Kernel
from kernels.workspace import Workspace
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

    def inputs(self, draw: Draw) -> Inputs:
        """As kernels/attention_operands.py draws them."""
        sizes = self._asdict()
        if not self.page_size:
            del sizes["page_size"]
        return self.kernel.inputs(draw, **sizes)

    def refused(self, config: Cut, arch: str) -> str:
        """Where it spills: few codes serve all shapes, so that each is compiled for this once."""
        code = config._replace(split=(1, FAN, FAN * FAN)[config.levels])  # all of so many levels are one code
        spilled = _spill_bytes(code, self.dtype, self.group, self.head_dim, self.page_size, arch)
        return f"spills {spilled} bytes a thread" if spilled else ""

    def room(self, config: Cut) -> tuple[int, int]:
        """Results of parts, and counters of who has arrived."""
        return room(config, pairs=self.pairs, group=self.group, head_dim=self.head_dim)

    def launch(self, config: Cut, scratch: Workspace, **inputs: Any) -> None:
        """Run a cut."""
        caches = ("key_pages", "value_pages") if self.page_size else ("key", "value")
        key, value = (inputs.pop(name) for name in caches)
        launch(**inputs, key=key, value=value, cut=config, scratch=scratch)


@cache
def _spill_bytes(config: Cut, dtype: str, group: int, head_dim: int, page: int, arch: str) -> int:
    return compile_variant(variant(config, dtype, group=group, head_dim=head_dim, page=page), arch).spill_bytes
