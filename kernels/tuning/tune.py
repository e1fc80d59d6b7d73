"""`python -m kernels tune`: fill an architecture's tables, by measuring on its GPU or by the static model."""

import time
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import torch

from kernels.timing.device import current_device
from kernels.triton_utils import missing_triton_launch
from kernels.tuning import books
from kernels.tuning.book import Book, folder, with_made, write
from kernels.tuning.books import ATTENTION, LINEARS, Bound
from kernels.tuning.search import Hunt, rounds
from kernels.tuning.static import static_rows
from kernels.tuning.table import MEASURED, STATIC, load
from kernels.tuning.trial import Bench, LostError
from specs.errors import UserError
from specs.gpus import Arch, arch
from specs.parallel import Shard

Say = Callable[[str], object]

PARTS = {LINEARS: books.linears, ATTENTION: books.attention}
"""What can be tuned, each part into a table of its own."""


def tune_static(on: Arch, dtype: str, shards: Sequence[Shard], into: Path, say: Say) -> Path:
    """Choose for linears by the static model and the compiler; rows that were measured stay. Returns the file written.

    Attention that nobody has measured is cut by its rule, which needs no table.
    """
    path = folder(into) / f"{on.name}.json"
    table = books.table_at(path, load)
    kept = {row.shape for row in table.rows if row.basis.startswith(MEASURED)}
    table = with_made(table, STATIC, books.versions(LINEARS) | {"gpu": on.representative.slug})
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
