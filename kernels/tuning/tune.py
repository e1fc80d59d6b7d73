"""`python -m kernels tune`: fill an architecture's table, by measuring on its GPU or by the static model."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from math import inf
from pathlib import Path

import torch
import triton

from kernels import gated, gemm, overlap, skinny
from kernels.timing.device import current_device
from kernels.tuning.config import Config
from kernels.tuning.rule import ranked
from kernels.tuning.search import SEEDS, Hunt, leaders_first, rounds
from kernels.tuning.shapes import TOKEN_CLASSES
from kernels.tuning.static import static_rows
from kernels.tuning.table import MEASURED, STATIC, TUNED, Row, Table, dump, load
from kernels.tuning.trial import Bench, LostError
from kernels.tuning.trials import Trial, read_trials, write_trial
from specs.archs import Arch, arch
from specs.dtypes import ITEMSIZE
from specs.errors import UserError
from specs.parallel import Shard

Say = Callable[[str], object]


def tune_static(on: Arch, dtype: str, shards: Sequence[Shard], into: Path, say: Say) -> Path:
    """Choose by the static model and the compiler; rows that were measured stay. Returns the file written."""
    _folder(into)
    table = _table(on.name, into)
    kept = {(row.dtype, row.tokens, row.n, row.k) for row in table.rows if row.basis.startswith(MEASURED)}
    table = _with_made(table, STATIC, _versions() | {"gpu": on.representative.slug})
    for row in static_rows(on, dtype, shards):
        if (row.dtype, row.tokens, row.n, row.k) not in kept:
            table = table.with_row(row)
    say(f"{on.name}: {len(table.rows)} rows, {len(kept)} of them measured")
    return _write(into, table)


def tune(dtype: str, shards: Sequence[Shard], budget_seconds: float, into: Path, say: Say) -> Path:
    """Search on the GPU at hand until the budget is spent; the table is on the disk after every round.

    Raises:
        UserError: there is no GPU, it is none that has a table, it was lost, or the folder cannot be written.
    """
    end = time.monotonic() + budget_seconds
    device = current_device()
    if device.kind != "cuda":
        raise UserError("no CUDA GPU: torch sees none; --static --arch sm_90 chooses by the static model without one")
    on = arch(device.arch)
    made = _versions() | {"gpu": torch.cuda.get_device_name()}
    table = _table(on.name, into)
    journal = _folder(into) / f"{on.name}.trials.jsonl"
    hunts = [_hunt(on, table, dtype, shard, tokens) for shard in shards for tokens in TOKEN_CLASSES]
    known = _recall(journal, made, dtype, hunts)
    say(f"{made['gpu']}: {len(hunts)} shapes, {known} tries known, {budget_seconds:.0f} s")
    _write(into, _filled(table, dtype, hunts, made))
    bench = Bench(device, dtype, max(shard.n * shard.k for shard in shards) * ITEMSIZE[dtype])

    def attempt(hunt: Hunt, config: Config) -> float:
        shape = {"tokens": hunt.tokens, "n": hunt.n, "k": hunt.k}
        tried = Trial(made, dtype, hunt.tokens, hunt.n, hunt.k, config, seconds=inf)
        try:
            tried = tried._replace(seconds=bench.seconds(config, **shape), problem=bench.problem)
        except LostError as error:
            write_trial(journal, tried._replace(problem=str(error)))
            raise UserError(f"{error}; what was tried is kept: run it again to go on with another") from error
        if bench.lasting:
            write_trial(journal, tried)
        return tried.seconds

    for number in rounds(hunts, attempt, lambda: time.monotonic() < end):
        _write(into, _filled(table, dtype, hunts, made))
        say(f"round {number}: {sum(len(hunt.seconds) for hunt in hunts)} tries")
    return _write(into, _filled(table, dtype, hunts, made))


def _hunt(on: Arch, table: Table, dtype: str, shard: Shard, tokens: int) -> Hunt:
    """What the table has now is tried first, so that a new row is never slower than the one it takes the place of."""
    configs = leaders_first([config for config, _ in ranked(on, dtype, tokens=tokens, n=shard.n, k=shard.k)])
    now = table.nearest(dtype, tokens, shard.n, shard.k)
    return Hunt(tokens, shard.n, shard.k, list(dict.fromkeys([now.config, *configs] if now else configs)))


def _recall(journal: Path, made: dict[str, str], dtype: str, hunts: Sequence[Hunt]) -> int:
    """Give the hunts what was tried before; how many tries that were."""
    by_shape = {(dtype, hunt.tokens, hunt.n, hunt.k): hunt for hunt in hunts}
    known = 0
    for trial in read_trials(journal, made):
        if hunt := by_shape.get((trial.dtype, trial.tokens, trial.n, trial.k)):
            hunt.seconds[trial.config], known = trial.seconds, known + 1
    return known


def _filled(table: Table, dtype: str, hunts: Sequence[Hunt], made: dict[str, str]) -> Table:
    """The table with the best of each hunt; one that has hardly begun has found nothing yet."""
    basis = MEASURED + made["gpu"]
    for hunt in hunts:
        if (best := hunt.best) is not None and len(hunt.seconds) >= min(SEEDS, len(hunt.ranked)):
            table = _with_made(table, basis, made | {"date": datetime.now(UTC).date().isoformat()})
            table = table.with_row(Row(dtype, hunt.tokens, hunt.n, hunt.k, best, hunt.seconds[best], basis))
    return table


def _table(name: str, into: Path) -> Table:
    """The table in `into`, else the committed one, else an empty one."""
    paths = (folder / f"{name}.json" for folder in (into, TUNED))
    return next((load(path) for path in paths if path.exists()), Table(name))


def _with_made(table: Table, basis: str, made: dict[str, str]) -> Table:
    return Table(table.arch, table.made | {basis: made}, table.rows)


def _versions() -> dict[str, str]:
    """What a time depends on beside the GPU; of the kernels a digest, because tries are void once one changes."""
    sources = (Path(str(module.__file__)).read_bytes() for module in (skinny, gemm, gated, overlap))
    kernel = sha256(b"".join(sources)).hexdigest()[:12]
    return {"torch": torch.__version__, "triton": triton.__version__, "kernel": kernel}


def _folder(into: Path) -> Path:
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--into {into}: {error.strerror}; choose a folder that can be written") from error
    return into


def _write(into: Path, table: Table) -> Path:
    """Whole or not at all: a reader never meets half a table."""
    path = _folder(into) / f"{table.arch}.json"
    half = path.with_suffix(".half")
    try:
        half.write_text(dump(table))
        half.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; choose a folder that can be written with --into") from error
    return path
