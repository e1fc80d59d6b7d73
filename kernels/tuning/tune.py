"""`python -m kernels tune`: fill an architecture's table, by measuring on its GPU or by the static model."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path

import torch
import triton

from kernels.timing.device import current_device
from kernels.tuning.choice import arch_of
from kernels.tuning.config import Config
from kernels.tuning.rule import ranked
from kernels.tuning.search import Hunt, rounds
from kernels.tuning.shapes import TOKEN_TILES
from kernels.tuning.static import static_rows
from kernels.tuning.table import MEASURED, STATIC, TUNED, Row, Table, dump, load
from kernels.tuning.trial import Bench
from kernels.tuning.trials import Trial, read_trials, write_trial
from specs.archs import Arch, arch
from specs.dtypes import ITEMSIZE
from specs.errors import UserError
from specs.parallel import Shard

Say = Callable[[str], object]


def tune_static(on: Arch, dtype: str, shards: Sequence[Shard], into: Path, say: Say) -> Path:
    """Choose by the static model and the compiler; rows that were measured stay. Returns the file written."""
    table = _table(on.name, into)
    kept = {(row.dtype, row.tokens, row.n, row.k) for row in table.rows if row.basis == MEASURED}
    table = _with_made(table, STATIC, _versions() | {"gpu": on.representative.slug})
    for row in static_rows(on, dtype, shards):
        if (row.dtype, row.tokens, row.n, row.k) not in kept:
            table = table.with_row(row)
    say(f"{on.name}: {len(table.rows)} rows, {len(kept)} of them measured")
    return _write(into, table)


def tune(dtype: str, shards: Sequence[Shard], budget_seconds: float, into: Path, say: Say) -> Path:
    """Search on the GPU at hand until the budget is spent; the table is on the disk after every round.

    Raises:
        UserError: there is no GPU, or the folder cannot be written.
        RuntimeError: a configuration took the GPU down; what was tried before is in the journal.
    """
    end = time.monotonic() + budget_seconds
    device = current_device()
    if device.kind != "cuda":
        raise UserError("no CUDA GPU: torch sees none; --static --arch sm_90 chooses by the static model without one")
    on = arch(arch_of(torch.device("cuda", torch.cuda.current_device())))
    made = _versions() | {"gpu": torch.cuda.get_device_name()}
    table = _with_made(_table(on.name, into), MEASURED, made | {"date": _today()})
    journal = _folder(into) / f"{on.name}.trials.jsonl"
    shapes = [(shard, tokens) for shard in shards for tokens in TOKEN_TILES]
    hunts = {_key(shard, tokens): _hunt(on, table, dtype, shard, tokens) for shard, tokens in shapes}
    of = {id(hunt): key for key, hunt in hunts.items()}
    known = 0
    for trial in read_trials(journal, made):
        if trial.dtype == dtype and (hunt := hunts.get((trial.tokens, trial.n, trial.k))):
            hunt.seconds[trial.config], known = trial.seconds, known + 1
    say(f"{made['gpu']}: {len(hunts)} shapes, {known} tries known, {budget_seconds:.0f} s")
    bench = Bench(device, dtype, max(shard.n * shard.k for shard in shards) * ITEMSIZE[dtype])

    def attempt(hunt: Hunt, config: Config) -> float:
        tokens, n, k = of[id(hunt)]
        seconds = bench.seconds(config, tokens=tokens, n=n, k=k)
        write_trial(journal, Trial(made, dtype, tokens, n, k, config, seconds, bench.problem))
        return seconds

    path = _write(into, table)
    for number in rounds(list(hunts.values()), attempt, lambda: time.monotonic() < end):
        path = _write(into, _filled(table, dtype, hunts))
        say(f"round {number + 1}: {sum(len(hunt.seconds) for hunt in hunts.values())} tries")
    return _write(into, _filled(table, dtype, hunts)) if any(hunt.seconds for hunt in hunts.values()) else path


def _key(shard: Shard, tokens: int) -> tuple[int, int, int]:
    return tokens, shard.n, shard.k


def _hunt(on: Arch, table: Table, dtype: str, shard: Shard, tokens: int) -> Hunt:
    """What the table has now is tried first, so that a new row is never slower than the one it takes the place of."""
    configs = [config for config, _ in ranked(on, dtype, tokens=tokens, n=shard.n, k=shard.k)]
    now = table.nearest(dtype, tokens, shard.n, shard.k)
    return Hunt(list(dict.fromkeys([now.config, *configs] if now else configs)))


def _filled(table: Table, dtype: str, hunts: dict[tuple[int, int, int], Hunt]) -> Table:
    for (tokens, n, k), hunt in hunts.items():
        if (best := hunt.best) is not None and hunt.seconds[best] < inf:
            table = table.with_row(Row(dtype, tokens, n, k, best, hunt.seconds[best], MEASURED))
    return table


def _table(name: str, into: Path) -> Table:
    """The table in `into`, else the committed one, else an empty one."""
    paths = (folder / f"{name}.json" for folder in (into, TUNED))
    return next((load(path) for path in paths if path.exists()), Table(name))


def _with_made(table: Table, basis: str, made: dict[str, str]) -> Table:
    return Table(table.arch, table.made | {basis: made}, table.rows)


def _versions() -> dict[str, str]:
    return {"torch": torch.__version__, "triton": triton.__version__}


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


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
