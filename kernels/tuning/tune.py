"""`python -m kernels tune`: fill an architecture's tables.

Rows come from measurements on its GPU or from the static model.
"""

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
from kernels.compile import TritonVariant, compile_variant
from kernels.configs import attention as attention_configs
from kernels.configs import dispatch as linear_table
from kernels.configs.attention import sm_count
from kernels.configs.config import (
    ATTENTION_BATCHES,
    ATTENTION_CONTEXTS,
    SKINNY_MAX_TOKENS,
    TOKEN_CLASSES,
    LinearConfig,
    attention_shards,
    compiles_well,
)
from kernels.configs.cost_model import Prediction
from kernels.configs.dispatch import (
    GEMM,
    MEASURED_BASIS,
    SKINNY,
    STATIC_BASIS,
    TUNED_FOLDER,
    ConfigTable,
    LinearRow,
    load_linear_table,
    rank_configs,
    ranked_candidates,
    search_space,
)
from kernels.skinny import variant
from kernels.timing.device import Device, current_device, format_gib
from kernels.triton_utils import missing_triton_launch, triton
from kernels.tuning.search import (
    DeviceLostError,
    SearchJob,
    TrialRunner,
    TuningTable,
    ensure_folder,
    leaders_first,
    search_rounds,
    with_provenance,
    write_table,
)
from kernels.tuning.shapes import AttentionShape, LinearShape, split_candidates
from specs.errors import UserError
from specs.gpus import Arch, find_arch
from specs.layer import PAGE_SIZE
from specs.parallel import Shard

# Tables that a search on a GPU can fill: that of the linears and that of decode attention.

LINEARS_PART, ATTENTION_PART = "linears", "attention"
KERNEL_SOURCES = {
    LINEARS_PART: (skinny, gemm, triton_utils),
    ATTENTION_PART: (decode_attention, triton_utils),
}


@dataclass(frozen=True)
class TuningContext:
    """Scope of a search: one GPU, one dtype, one model's shards, one folder.

    `say` gets its progress.
    """

    arch: Arch
    device: Device
    gpu: str
    dtype: str
    shards: Sequence[Shard]
    into: Path
    say: Callable[[str], object]


def linear_tuning(tuning: TuningContext) -> TuningTable:
    """Return the table and the jobs of every shard at every class of tokens."""
    path = tuning.into / f"{tuning.arch.name}.json"
    table = load_table(path, linear_table.load_linear_table)
    shapes = [LinearShape(tuning.dtype, tokens, one.n, one.k) for one in tuning.shards for tokens in TOKEN_CLASSES]
    usable = replace(table, rows=tuple(row for row in table.rows if compiles_well(row.config)))
    hunts = [_search_job(usable, shape, _ranked_leaders(tuning.arch, **shape._asdict())) for shape in shapes]
    return TuningTable(path, table, software_versions(LINEARS_PART) | {"gpu": tuning.gpu}, LinearRow, hunts)


def _ranked_leaders(arch: Arch, dtype: str, **shape: int) -> list[Any]:
    return leaders_first([config for config, _ in ranked_candidates(arch, dtype, **shape)])


def attention_tuning(tuning: TuningContext) -> TuningTable:
    """Return the table and jobs of decode attention at usual batches and contexts.

    They cover the heads of every rank, over a contiguous cache and over pages. One shape represents all shapes with as
    many pairs. Shapes that take more than half of the free memory are left out and reported.
    """
    path = tuning.into / f"{tuning.arch.name}.attention.json"
    table = load_table(path, attention_configs.load_attention_table)
    room, sms = tuning.device.free_bytes() // 2, sm_count(torch.device(tuning.device.kind))
    classes: dict[tuple[int, ...], AttentionShape] = {}
    for shape in _attention_shapes(tuning):
        classes.setdefault((shape.group, shape.head_dim, shape.pairs, shape.context, shape.page_size), shape)
    fitting = [shape for shape in classes.values() if shape.streamed_bytes <= room]
    if left_out := len(classes) - len(fitting):
        tuning.say(
            f"{left_out} shapes of attention left out: their caches are beyond {format_gib(room)}, half of what is free"
        )
    hunts = [_search_job(table, shape, split_candidates(tuning.arch, sms, shape)) for shape in fitting]
    return TuningTable(
        path, table, software_versions(ATTENTION_PART) | {"gpu": tuning.gpu}, attention_configs.AttentionRow, hunts
    )


def _attention_shapes(tuning: TuningContext) -> Iterator[AttentionShape]:
    for one in attention_shards(tuning.shards):
        for batch, context, page_size in product(ATTENTION_BATCHES, ATTENTION_CONTEXTS, (0, PAGE_SIZE)):
            yield AttentionShape(tuning.dtype, batch, context, one.heads, one.kv_heads, one.head_dim, page_size)


def _search_job(table: ConfigTable[Any], shape: Any, configs: list[Any]) -> SearchJob:
    """Return a job that tries the table's present configuration first.

    A new row is thus never slower than the row that it replaces.
    """
    now = table.nearest(*shape)
    return SearchJob(shape, list(dict.fromkeys([now.config, *configs] if now else configs)))


def load_table(path: Path, load: Callable[[Path], ConfigTable[Any]]) -> ConfigTable[Any]:
    """Return the table at `path`, else the committed table, else an empty table."""
    paths = (path, TUNED_FOLDER / path.name)
    return next((load(one) for one in paths if one.exists()), ConfigTable(path.name.split(".")[0]))


def software_versions(part: str) -> dict[str, str]:
    """Return the versions that a time depends on, besides the GPU.

    Kernels have a digest, since trials are void once a kernel changes.
    """
    sources = (Path(str(module.__file__)).read_bytes() for module in KERNEL_SOURCES[part])
    kernel = sha256(b"".join(sources)).hexdigest()[:12]
    return {"torch": torch.__version__, "triton": triton.__version__, "kernel": kernel}


# Choice without a GPU: the static model's best few are compiled, and the best with real registers is taken.
#
# A configuration that other shapes already use is taken where it is nearly as good: each further configuration costs a
# user compile time.

COMPILED_CANDIDATES = {SKINNY: 4, GEMM: 1}
"""Candidates that are compiled for a shape, besides those that spill.

A GEMM's registers are mostly its sums.
"""
REUSE_TOLERANCE = 1.03
"""Largest prediction of a reused configuration, over the best prediction."""


@cache
def compiled_programs_per_sm(config: LinearConfig, dtype: str, arch: Arch, *, tokens: int, even: bool) -> int:
    """Return how many programs an SM holds, by compiled registers and shared memory.

    0 where a form spills or does not fit.
    """
    made = [compile_variant(form, arch.name) for form in _variants(config, dtype, arch, tokens, even)]
    if any(one.spill_bytes for one in made):
        return 0
    resident = search_space(tokens).programs_per_sm
    return min(resident(arch, config, dtype, registers=one.registers, shared=one.shared_bytes) for one in made)


def _variants(config: LinearConfig, dtype: str, arch: Arch, tokens: int, even: bool) -> list[TritonVariant]:
    """Return the compiled forms that calls of so many tokens run, on aligned rows.

    Aligned rows begin at multiples of 16 bytes.
    """
    if tokens <= SKINNY_MAX_TOKENS:
        return [variant(config, dtype, even=even, dependent=dependent) for dependent in {False, arch.dependent_launch}]
    return [gemm.variant(config, dtype, even=even or config.tma, swiglu=swiglu) for swiglu in (False, True)]


def static_rows(arch: Arch, dtype: str, shards: Sequence[Shard]) -> Iterator[LinearRow]:
    """Yield a row for each shard and class of tokens."""
    used: Counter[LinearConfig] = Counter()
    for tokens in TOKEN_CLASSES:
        for shard in shards:
            row = _static_row(arch, dtype, used, tokens=tokens, n=shard.n, k=shard.k)
            used[row.config] += 1
            yield row


def _static_row(arch: Arch, dtype: str, used: Counter[LinearConfig], *, tokens: int, n: int, k: int) -> LinearRow:
    candidates = [config for config, _ in ranked_candidates(arch, dtype, tokens=tokens, n=n, k=k)]
    known = search_space(tokens)

    def clean(configs: Iterable[LinearConfig]) -> Iterator[tuple[LinearConfig, Prediction]]:
        for config in configs:
            if programs := compiled_programs_per_sm(config, dtype, arch, tokens=tokens, even=config.even(n, k)):
                yield config, known.predict(config, arch.representative, programs, dtype, tokens=tokens, n=n, k=k)

    told = dict(islice(clean(candidates), COMPILED_CANDIDATES[known])) | dict(clean(set(candidates) & set(used)))
    seconds = {config: prediction.seconds or 0.0 for config, prediction in told.items()}
    near = [(c, p) for c, p in told.items() if seconds[c] <= REUSE_TOLERANCE * min(seconds.values())]
    most = max(used[config] for config, _ in near)
    config, _ = rank_configs(pair for pair in near if used[pair[0]] == most)[0]
    return LinearRow(dtype, tokens, n, k, config, round(seconds[config], 10), STATIC_BASIS)


ReportProgress = Callable[[str], object]

TUNING_PARTS = {LINEARS_PART: linear_tuning, ATTENTION_PART: attention_tuning}
"""Functions that open the table of each part."""


def tune_static(arch: Arch, dtype: str, shards: Sequence[Shard], into: Path, say: ReportProgress) -> Path:
    """Choose for linears by static model and compiler; return the file written.

    Measured rows stay. Attention without a measurement is cut by its rule, which needs no table.
    """
    path = ensure_folder(into) / f"{arch.name}.json"
    table = load_table(path, load_linear_table)
    kept = {row.shape for row in table.rows if row.basis.startswith(MEASURED_BASIS)}
    table = with_provenance(table, STATIC_BASIS, software_versions(LINEARS_PART) | {"gpu": arch.representative.slug})
    for row in static_rows(arch, dtype, shards):
        if row.shape not in kept:
            table = table.with_row(row)
    say(f"{arch.name}: {len(table.rows)} rows, {len(kept)} of them measured; attention keeps to its rule")
    return write_table(path, table)


def tune(
    dtype: str,
    shards: Sequence[Shard],
    budget_seconds: float,
    into: Path,
    say: ReportProgress,
    parts: Sequence[str] = tuple(TUNING_PARTS),
) -> list[Path]:
    """Search on this GPU until the budget is spent.

    The tables are written after every round.

    Args:
        dtype: dtype of the operands.
        shards: shards whose linears and, by model and degree, whose attention is tuned.
        budget_seconds: time for all parts together; trials are in proportion to their shapes.
        into: folder of the tables.
        say: gets the progress, a line at a time.
        parts: parts of TUNING_PARTS.

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
    bound = TuningContext(
        find_arch(device.arch), device, torch.cuda.get_device_name(), dtype, shards, ensure_folder(into), say
    )
    opened = [TUNING_PARTS[part](bound) for part in parts]
    home = {hunt.shape: book for book in opened for hunt in book.jobs}
    known = sum(book.load_trials() for book in opened)
    say(f"{bound.gpu}: {len(home)} shapes, {known} tries known, {budget_seconds:.0f} s")
    for book in opened:
        book.write_best()
    bench = TrialRunner(device, dtype, max((shape.streamed_bytes for shape in home), default=0))

    def attempt(hunt: SearchJob, config: Any) -> float:
        book, seconds = home[hunt.shape], inf
        try:
            seconds = bench.seconds(hunt.shape, config)
        except DeviceLostError as error:
            book.record_trial(hunt, config, seconds, str(error))
            raise UserError(f"{error}; what was tried is kept: run it again to go on with another") from error
        if bench.is_permanent:
            book.record_trial(hunt, config, seconds, bench.problem)
        return seconds

    for number in search_rounds(_interleave_jobs(opened), attempt, lambda: time.monotonic() < end):
        for book in opened:
            book.write_best()
        say(f"round {number}: {sum(len(hunt.seconds) for book in opened for hunt in book.jobs)} tries")
    return [book.write_best() for book in opened]


def _interleave_jobs(tables: Sequence[TuningTable]) -> list[SearchJob]:
    """Return all jobs, with each table's jobs spread over the whole.

    A budget that ends within a round has then served all tables.
    """
    places = [((at + 0.5) / len(book.jobs), hunt) for book in tables for at, hunt in enumerate(book.jobs)]
    return [hunt for _, hunt in sorted(places, key=lambda place: place[0])]
