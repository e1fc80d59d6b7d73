"""The books that a search on a GPU can open: that of the linears and that of decode attention."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import torch

from kernels import decode_attention, flash_decoding, gated, gemm, gemm_tile, overlap, skinny
from kernels.attention_cut import sms_of
from kernels.timing.device import Device, gib
from kernels.triton_utils import triton
from kernels.tuning import attention_table
from kernels.tuning import table as linear_table
from kernels.tuning.attention_shape import AttentionShape
from kernels.tuning.attention_space import candidates
from kernels.tuning.book import Book
from kernels.tuning.compiler import compiles_well
from kernels.tuning.linear_shape import LinearShape
from kernels.tuning.rule import ranked
from kernels.tuning.search import Hunt, leaders_first
from kernels.tuning.shapes import ATTENTION_BATCHES, CONTEXTS, TOKEN_CLASSES, heads
from kernels.tuning.table import TUNED, Row, Table
from specs.gpus import Arch
from specs.layer import PAGE_SIZE
from specs.parallel import Shard

LINEARS, ATTENTION = "linears", "attention"
SOURCES = {
    LINEARS: (skinny, gemm, gemm_tile, gated, overlap),
    ATTENTION: (decode_attention, flash_decoding, overlap),
}


@dataclass(frozen=True)
class Bound:
    """What a search is bound to: one GPU, one dtype, one model's shards, one folder, and who is told."""

    on: Arch
    device: Device
    gpu: str
    dtype: str
    shards: Sequence[Shard]
    into: Path
    say: Callable[[str], object]


def linears(bound: Bound) -> Book:
    """Every shard at every class of tokens."""
    path = bound.into / f"{bound.on.name}.json"
    table = table_at(path, linear_table.load)
    shapes = [LinearShape(bound.dtype, tokens, one.n, one.k) for one in bound.shards for tokens in TOKEN_CLASSES]
    usable = replace(table, rows=tuple(row for row in table.rows if compiles_well(row.config)))
    hunts = [_hunt(usable, shape, _leaders(bound.on, **shape._asdict())) for shape in shapes]
    return Book(path, table, versions(LINEARS) | {"gpu": bound.gpu}, Row, hunts)


def _leaders(on: Arch, dtype: str, **shape: int) -> list[Any]:
    return leaders_first([config for config, _ in ranked(on, dtype, **shape)])


def attention(bound: Bound) -> Book:
    """The heads of every rank at usual batches and contexts, over a contiguous cache and over pages.

    One shape stands for all of as many pairs. What takes more than half of the free memory is left out, and said.
    """
    path = bound.into / f"{bound.on.name}.attention.json"
    table = table_at(path, attention_table.load)
    room, sms = bound.device.free_bytes() // 2, sms_of(torch.device(bound.device.kind))
    classes: dict[tuple[int, ...], AttentionShape] = {}
    for shape in _attention_shapes(bound):
        classes.setdefault((shape.group, shape.head_dim, shape.pairs, shape.context, shape.page_size), shape)
    fitting = [shape for shape in classes.values() if shape.streamed_bytes <= room]
    if left_out := len(classes) - len(fitting):
        bound.say(f"{left_out} shapes of attention left out: their caches are beyond {gib(room)}, half of what is free")
    hunts = [_hunt(table, shape, candidates(bound.on, sms, shape)) for shape in fitting]
    return Book(path, table, versions(ATTENTION) | {"gpu": bound.gpu}, attention_table.AttentionRow, hunts)


def _attention_shapes(bound: Bound) -> Iterator[AttentionShape]:
    for one in heads(bound.shards):
        for batch, context, page_size in product(ATTENTION_BATCHES, CONTEXTS, (0, PAGE_SIZE)):
            yield AttentionShape(bound.dtype, batch, context, one.heads, one.kv_heads, one.head_dim, page_size)


def _hunt(table: Table[Any], shape: Any, configs: list[Any]) -> Hunt:
    """What the table has now is tried first, so that a new row is never slower than the one it takes the place of."""
    now = table.nearest(*shape)
    return Hunt(shape, list(dict.fromkeys([now.config, *configs] if now else configs)))


def table_at(path: Path, load: Callable[[Path], Table[Any]]) -> Table[Any]:
    """The table at `path`, else the committed one of its name, else an empty one."""
    paths = (path, TUNED / path.name)
    return next((load(one) for one in paths if one.exists()), Table(path.name.split(".")[0]))


def versions(part: str) -> dict[str, str]:
    """What a time depends on beside the GPU; of the kernels a digest, because tries are void once one changes."""
    sources = (Path(str(module.__file__)).read_bytes() for module in SOURCES[part])
    kernel = sha256(b"".join(sources)).hexdigest()[:12]
    return {"torch": torch.__version__, "triton": triton.__version__, "kernel": kernel}
