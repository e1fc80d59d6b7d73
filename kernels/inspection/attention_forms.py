"""The compiled forms of decode attention that a model's shards run with."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kernels.attention_cut import sms_of_arch
from kernels.decode_attention import TRITON_DECODE_ATTENTION, TRITON_PAGED_ATTENTION, variant
from kernels.inspection.form import Form, plain
from kernels.tuning.attention_choice import choose
from kernels.tuning.shapes import heads
from specs.gpus import Arch
from specs.layer import PAGE_SIZE
from specs.parallel import Shard

BATCHES = (1, 32)
CONTEXT = 8192


def attention_forms(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Form]:
    """Contiguous and paged, once for each different code."""
    seen = set()
    for one in heads(shards):
        group, sizes = (
            one.heads // one.kv_heads,
            {name: getattr(one, name) for name in ("heads", "kv_heads", "head_dim")},
        )
        for batch in BATCHES:
            for kernel, page in ((TRITON_DECODE_ATTENTION, 0), (TRITON_PAGED_ATTENTION, PAGE_SIZE)):
                shape = {"batch": batch, "context": CONTEXT, **sizes, "page_size": page}
                cut, basis = choose(on.name, sms_of_arch(on.name), dtype, **shape)
                code = (cut._replace(split=1), cut.levels, group, one.head_dim, page)
                if code not in seen:
                    seen.add(code)
                    parts = ("", ", parts", ", parts of parts")[cut.levels]
                    told = f"{cut.block}x{group}x{one.head_dim} w{cut.warps} s{cut.stages}{parts}"
                    compiled = variant(cut, dtype, group=group, head_dim=one.head_dim, page=page)
                    in_flight = cut.in_flight_bytes(dtype, one.head_dim)
                    yield replace(plain(kernel, compiled, told, dtype, in_flight), basis=basis)
