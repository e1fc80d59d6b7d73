"""`python -m kernels tune`: fill an architecture's tables, by measuring on its GPU or by the static model."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from itertools import islice, product
from math import inf
from pathlib import Path
from typing import Any

import torch

from kernels import decode_attention, gemm, skinny, triton_utils
from kernels.compile import Variant, compile_variant
from kernels.configs import attention as configs_attention
from kernels.configs import dispatch as linear_table
from kernels.configs.attention import sms_of
from kernels.configs.config import ATTENTION_BATCHES, CONTEXTS, FEW_TOKENS, TOKEN_CLASSES, Config, compiles_well, heads
from kernels.configs.cost_model import Prediction
from kernels.configs.dispatch import GEMM, MEASURED, SKINNY, STATIC, TUNED, Row, Table, kind, load, rank, ranked
from kernels.skinny import variant
from kernels.timing.device import Device, current_device, gib
from kernels.triton_utils import missing_triton_launch, triton
from kernels.tuning.search import Bench, Book, Hunt, LostError, folder, leaders_first, rounds, with_made, write
from kernels.tuning.subjects import AttentionShape, LinearShape, candidates
from specs.errors import UserError
from specs.gpus import Arch, arch
from specs.layer import PAGE_SIZE
from specs.parallel import Shard

# The books that a search on a GPU can open: that of the linears and that of decode attention.

LINEARS, ATTENTION = "linears", "attention"
SOURCES = {
    LINEARS: (skinny, gemm, triton_utils),
    ATTENTION: (decode_attention, triton_utils),
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
    table = table_at(path, configs_attention.load)
    room, sms = bound.device.free_bytes() // 2, sms_of(torch.device(bound.device.kind))
    classes: dict[tuple[int, ...], AttentionShape] = {}
    for shape in _attention_shapes(bound):
        classes.setdefault((shape.group, shape.head_dim, shape.pairs, shape.context, shape.page_size), shape)
    fitting = [shape for shape in classes.values() if shape.streamed_bytes <= room]
    if left_out := len(classes) - len(fitting):
        bound.say(f"{left_out} shapes of attention left out: their caches are beyond {gib(room)}, half of what is free")
    hunts = [_hunt(table, shape, candidates(bound.on, sms, shape)) for shape in fitting]
    return Book(path, table, versions(ATTENTION) | {"gpu": bound.gpu}, configs_attention.AttentionRow, hunts)


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


# Choosing without silicon: the static model's best few, compiled, and of those the best with real registers.
#
# A configuration that other shapes run with already is taken where it is nearly as good: each one more costs a user the
# time to compile it.

COMPILED = {SKINNY: 4, GEMM: 1}
"""Candidates that are compiled for a shape, beyond those that spill: a GEMM's registers are mostly its sums."""
NEARLY = 1.03
"""Over the best prediction, what a configuration that is in use already may take."""


@cache
def programs_per_sm(config: Config, dtype: str, on: Arch, *, tokens: int, even: bool) -> int:
    """Programs that an SM holds, by the compiler's registers and shared memory; 0 where one spills or does not fit."""
    made = [compile_variant(form, on.name) for form in _forms(config, dtype, on, tokens, even)]
    if any(one.spill_bytes for one in made):
        return 0
    resident = kind(tokens).resident
    return min(resident(on, config, dtype, registers=one.registers, shared=one.shared_bytes) for one in made)


def _forms(config: Config, dtype: str, on: Arch, tokens: int, even: bool) -> list[Variant]:
    """What calls of so many tokens run of a configuration where rows begin at 16 bytes."""
    if tokens <= FEW_TOKENS:
        return [variant(config, dtype, even=even, dependent=dependent) for dependent in {False, on.dependent_launch}]
    return [gemm.variant(config, dtype, even=even or config.tma, swiglu=swiglu) for swiglu in (False, True)]


def static_rows(on: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[Row]:
    """A row for each shard and class of tokens."""
    used: Counter[Config] = Counter()
    for tokens in TOKEN_CLASSES:
        for shard in shards:
            row = _static_row(on, dtype, used, tokens=tokens, n=shard.n, k=shard.k)
            used[row.config] += 1
            yield row


def _static_row(on: Arch, dtype: str, used: Counter[Config], *, tokens: int, n: int, k: int) -> Row:
    candidates = [config for config, _ in ranked(on, dtype, tokens=tokens, n=n, k=k)]
    known = kind(tokens)

    def clean(configs: Iterable[Config]) -> Iterator[tuple[Config, Prediction]]:
        for config in configs:
            if programs := programs_per_sm(config, dtype, on, tokens=tokens, even=config.even(n, k)):
                yield config, known.predict(config, on.representative, programs, dtype, tokens=tokens, n=n, k=k)

    told = dict(islice(clean(candidates), COMPILED[known])) | dict(clean(set(candidates) & set(used)))
    seconds = {config: prediction.seconds or 0.0 for config, prediction in told.items()}
    near = [(c, p) for c, p in told.items() if seconds[c] <= NEARLY * min(seconds.values())]
    most = max(used[config] for config, _ in near)
    config, _ = rank(pair for pair in near if used[pair[0]] == most)[0]
    return Row(dtype, tokens, n, k, config, round(seconds[config], 10), STATIC)


Say = Callable[[str], object]

PARTS = {LINEARS: linears, ATTENTION: attention}
"""What can be tuned, each part into a table of its own."""


def tune_static(on: Arch, dtype: str, shards: Sequence[Shard], into: Path, say: Say) -> Path:
    """Choose for linears by the static model and the compiler; rows that were measured stay. Returns the file written.

    Attention that nobody has measured is cut by its rule, which needs no table.
    """
    path = folder(into) / f"{on.name}.json"
    table = table_at(path, load)
    kept = {row.shape for row in table.rows if row.basis.startswith(MEASURED)}
    table = with_made(table, STATIC, versions(LINEARS) | {"gpu": on.representative.slug})
    for row in static_rows(on, dtype, shards):
        if row.shape not in kept:
            table = table.with_row(row)
    say(f"{on.name}: {len(table.rows)} rows, {len(kept)} of them measured; attention keeps to its rule")
    return write(path, table)


def tune(
    dtype: str,
    shards: Sequence[Shard],
    budget_seconds: float,
    into: Path,
    say: Say,
    parts: Sequence[str] = tuple(PARTS),
) -> list[Path]:
    """Search on the GPU at hand until the budget is spent; the tables are on the disk after every round.

    Args:
        dtype: of the operands.
        shards: whose linears and, by model and degree, whose attention.
        budget_seconds: for all parts together, which have tries in proportion to their shapes.
        into: folder of the tables.
        say: told of the progress, a line at a time.
        parts: of PARTS.

    Returns:
        The files written.

    Raises:
        UserError: there is no GPU, it is none that has a table, it was lost, or the folder cannot be written.
    """
    end = time.monotonic() + budget_seconds
    device = current_device()
    if device.kind != "cuda":
        raise UserError("no CUDA GPU: torch sees none; --static --arch sm_90 chooses by the static model without one")
    if reason := missing_triton_launch():
        raise UserError(reason)
    bound = Bound(arch(device.arch), device, torch.cuda.get_device_name(), dtype, shards, folder(into), say)
    opened = [PARTS[part](bound) for part in parts]
    home = {hunt.shape: book for book in opened for hunt in book.hunts}
    known = sum(book.recall() for book in opened)
    say(f"{bound.gpu}: {len(home)} shapes, {known} tries known, {budget_seconds:.0f} s")
    for book in opened:
        book.fill()
    bench = Bench(device, dtype, max((shape.streamed_bytes for shape in home), default=0))

    def attempt(hunt: Hunt, config: Any) -> float:
        book, seconds = home[hunt.shape], inf
        try:
            seconds = bench.seconds(hunt.shape, config)
        except LostError as error:
            book.record(hunt, config, seconds, str(error))
            raise UserError(f"{error}; what was tried is kept: run it again to go on with another") from error
        if bench.lasting:
            book.record(hunt, config, seconds, bench.problem)
        return seconds

    for number in rounds(_in_proportion(opened), attempt, lambda: time.monotonic() < end):
        for book in opened:
            book.fill()
        say(f"round {number}: {sum(len(hunt.seconds) for book in opened for hunt in book.hunts)} tries")
    return [book.fill() for book in opened]


def _in_proportion(opened: Sequence[Book]) -> list[Hunt]:
    """All hunts, those of each book spread over the whole: a budget that ends within a round has served them all."""
    places = [((at + 0.5) / len(book.hunts), hunt) for book in opened for at, hunt in enumerate(book.hunts)]
    return [hunt for _, hunt in sorted(places, key=lambda place: place[0])]
