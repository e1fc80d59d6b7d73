"""The compiled forms of decode attention that a model's shards run with, by the rule."""

from collections.abc import Iterator, Sequence

from kernels.attention_cut import choose, sms_of_arch
from kernels.compile import Variant
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION, variant
from kernels.kernel import Kernel
from specs.archs import Arch
from specs.attention import PAGE_SIZE, heads_of
from specs.models import model
from specs.parallel import Shard, Split

BATCHES = (1, 32)
CONTEXT = 8192


def variants(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[tuple[Kernel, Variant, str, str, int]]:
    """Kernel, compiled form, that in words, dtype and bytes in flight a program, once for each different code."""
    seen = set()
    for slug, tp in dict.fromkeys((shard.model, shard.tp) for shard in shards):
        if not model(slug).heads:
            continue
        heads = heads_of(Split(model(slug), tp))
        group, sizes = heads.heads // heads.kv_heads, {"kv_heads": heads.kv_heads, "head_dim": heads.head_dim}
        for batch in BATCHES:
            choice = choose(on.name, sms_of_arch(on.name), dtype, batch=batch, context=CONTEXT, **sizes)
            for kernel, page in ((TRITON_DECODE_ATTENTION, 0), (TRITON_PAGED_ATTENTION, PAGE_SIZE)):
                code = (choice.levels, group, heads.head_dim, page)
                if code not in seen:
                    seen.add(code)
                    told = f"{choice.cut.block}x{group}x{heads.head_dim} w{choice.cut.warps} s{choice.cut.stages}"
                    parts = ("", ", parts", ", parts of parts")[choice.levels]
                    compiled = variant(choice, dtype, group=group, head_dim=heads.head_dim, page=page)
                    yield kernel, compiled, told + parts, dtype, choice.cut.in_flight_bytes(dtype, heads.head_dim)
