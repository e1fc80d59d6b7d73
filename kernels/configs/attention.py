"""The split of decode attention into programs: rule, tuned tables and dispatch.

The rule cuts shapes without a tuned row, by architecture and SMs. A step is one tile of K and V: 32 KiB, or 16 where an
SM has only 100 KiB of shared memory. Both leave room for two programs of three stages per SM, so memory stays busy
while one program is in its softmax.
"""

from dataclasses import dataclass
from functools import cache
from math import ceil, log2
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kernels.configs.dispatch import (
    ARCH_WITHOUT_GPU,
    MEASURED_BASIS,
    TUNED_FOLDER,
    ConfigChoice,
    ConfigTable,
    read_table,
)
from specs.gpus import Arch, find_arch
from specs.units import ITEMSIZE

MERGE_FAN_IN = 16
"""Parts that one program adds up.

The sums of more parts are added up in the same way, so there are at most 256 parts.
"""
MIN_STEPS_PER_PART = 2
"""Least steps of a part.

One tile can then be in flight during the work on the other tile.
"""
START_COST_STEPS, MERGE_COST_STEPS = 1, 2
"""Cost of a program besides its steps, in steps: its start, a merge level.

Merging 16 partial results reads 64 KiB.
"""
PROGRAMS_PER_SM = 2
"""Programs that should run on an SM at once."""


class SplitConfig(NamedTuple):
    """One way to cut a call into programs.

    Attributes:
        block: tokens of K and V that a program takes at a time.
        warps: warps of a program.
        stages: depth of the software pipeline.
        split: programs that share the tokens of one sequence and kv head.
    """

    block: int
    warps: int
    stages: int
    split: int = 1

    def __str__(self) -> str:
        parts = f" /{self.split}" if self.split > 1 else ""
        return f"{self.block} tokens{parts} w{self.warps} s{self.stages}"

    @property
    def merge_levels(self) -> int:
        """Levels of merging: 0, 1, or 2 for groups of 16 and then their sums."""
        return merge_levels(self.split)

    def in_flight_bytes(self, dtype: str, head_dim: int) -> int:
        """Return the bytes of K and V that a program has in flight during a step.

        Triton keeps one buffer less than there are stages, and refills the buffer just read at the end of a step.
        """
        return 2 * self.block * head_dim * ITEMSIZE[dtype] * (self.stages - 2)

    def partial_count(self, pairs: int) -> int:
        """Return how many partial results one call passes between programs.

        `pairs` counts pairs of a sequence and a kv head.
        """
        return pairs * (self.split + ceil(self.split / MERGE_FAN_IN)) if self.merge_levels else 0

    def counter_count(self, pairs: int) -> int:
        """Return how many arrival counters one call needs."""
        return pairs * (ceil(self.split / MERGE_FAN_IN) + 1) if self.merge_levels else 0


def merge_levels(split: int) -> int:
    """Return the levels of merging for `split` parts."""
    return 0 if split == 1 else 1 if split <= MERGE_FAN_IN else 2


def unsplit_config(arch: Arch, dtype: str, head_dim: int) -> SplitConfig:
    """Return the configuration for whole sequences.

    Its tile is the largest that the shared memory of an SM allows.
    """
    tile_bytes = 2**15 if arch.shared_bytes >= 2**17 else 2**14
    return SplitConfig(block=tile_bytes // (2 * head_dim * ITEMSIZE[dtype]), warps=4, stages=3)


@cache
def choose_split(pairs: int, steps: int, sms: int) -> int:
    """Return how many programs share each pair of a sequence and a kv head.

    The longest of the `pairs` has `steps` steps. The chosen split ends first, and among equals has the fewest parts.
    Programs take turns, PROGRAMS_PER_SM on every SM. Each turn takes the steps of a part plus the fixed cost of a
    program.
    """

    def duration(parts: int) -> int:
        turns = ceil(pairs * parts / (PROGRAMS_PER_SM * sms))
        return turns * (ceil(steps / parts) + START_COST_STEPS + MERGE_COST_STEPS * merge_levels(parts))

    return min(range(1, max(1, min(MERGE_FAN_IN * MERGE_FAN_IN, steps // MIN_STEPS_PER_PART)) + 1), key=duration)


def rule_split_config(arch: Arch, sms: int, dtype: str, *, pairs: int, context: int, head_dim: int) -> SplitConfig:
    """Return the rule's cut of `pairs` pairs of a sequence and a kv head.

    Each pair has `context` tokens, and the GPU has `sms` SMs.
    """
    one = unsplit_config(arch, dtype, head_dim)
    return one._replace(split=choose_split(pairs, ceil(context / one.block), sms))


@cache
def sm_count(device: torch.device) -> int:
    """Return the SMs of a device; without a GPU those of ARCH_WITHOUT_GPU."""
    if device.type != "cuda":
        return arch_sm_count(ARCH_WITHOUT_GPU)
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def arch_sm_count(name: str) -> int:
    """Return the SMs of an architecture's representative GPU."""
    sms = find_arch(name).representative.sms
    assert sms is not None  # noqa: S101 - each of them has a count in its datasheet
    return sms


# Cuts of decode attention by architecture and shape: `kernels/tuned/<arch>.attention.json`.

MAX_PAIRS_DISTANCE, MAX_CONTEXT_DISTANCE = 0.5, 1.0
"""Largest distances between a shape and a row, in powers of two.

Pairs decide how many parts fill the SMs. The context decides the time of each part, which matters less.
"""


@dataclass(frozen=True)
class AttentionRow:
    """The cut of one class of shapes.

    Attributes:
        dtype, batch, context, heads, kv_heads, head_dim: the shape that was tuned.
        page_size: tokens of a page, 0 for a contiguous cache.
        config: the chosen cut.
        seconds: cold mean of a call.
        basis: MEASURED_BASIS followed by the GPU.
    """

    dtype: str
    batch: int
    context: int
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    config: SplitConfig
    seconds: float
    basis: str

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape of the row; a table has one row per shape."""
        return self.dtype, self.batch, self.context, self.heads, self.kv_heads, self.head_dim, self.page_size

    def distance(
        self, dtype: str, batch: int, context: int, heads: int, kv_heads: int, head_dim: int, page_size: int
    ) -> float | None:
        """Return the distance of a shape in powers of two; None where it is out of reach.

        A batch of 32 on one kv head equals a batch of 4 on eight: as many pairs, each a stream of its own.
        """
        pairs = abs(log2(batch * kv_heads / (self.batch * self.kv_heads)))
        length = abs(log2(context / self.context))
        code = (dtype, heads // kv_heads, head_dim, page_size)
        same = code == (self.dtype, self.heads // self.kv_heads, self.head_dim, self.page_size)
        return pairs + length if same and pairs <= MAX_PAIRS_DISTANCE and length <= MAX_CONTEXT_DISTANCE else None


def load_attention_table(path: Path) -> ConfigTable[AttentionRow]:
    """Read a table.

    Raises:
        UserError: the file cannot be read, or is no table of this schema and of the architecture in its name.
    """
    return read_table(path, _read_attention_row)


def _read_attention_row(config: dict[str, Any], **rest: Any) -> AttentionRow:
    row = AttentionRow(**rest, config=SplitConfig(**config))
    sizes = (*row.shape[1:6], *row.config)
    if not all(type(size) is int and size > 0 for size in sizes) or type(row.page_size) is not int or row.page_size < 0:
        raise ValueError(f"sizes are whole numbers of at least 1, and page_size 0 without pages: {row}")
    if (
        any(size & (size - 1) for size in row.config[:2])
        or row.config.block < 16
        or row.config.split > MERGE_FAN_IN * MERGE_FAN_IN
    ):
        raise ValueError(
            f"block and warps are powers of two, block 16 or more, split {MERGE_FAN_IN * MERGE_FAN_IN} at most: "
            f"{row.config}"
        )
    if row.heads % row.kv_heads or row.dtype not in ITEMSIZE or not row.basis.startswith(MEASURED_BASIS):
        raise ValueError(f"heads that kv_heads do not divide, or a dtype or basis that is unknown: {row}")
    return row


@cache
def tuned_attention_table(arch: str, folder: Path = TUNED_FOLDER) -> ConfigTable[AttentionRow] | None:
    """Return the table of an architecture; None if there is none."""
    path = folder / f"{arch}.attention.json"
    return load_attention_table(path) if path.exists() else None


# Dispatch: the cut of a tuned row that covers the shape, else the rule's. There is no search.


@cache
def choose_split_config(
    name: str, sms: int, dtype: str, *, batch: int, context: int, heads: int, kv_heads: int, head_dim: int,
    page_size: int = 0,
) -> ConfigChoice[SplitConfig]:  # fmt: skip
    """Return the cut of a call on the architecture `name` with `sms` SMs.

    page_size is 0 for a contiguous cache.

    Raises:
        UserError: the architecture's limits are unknown, or its table cannot be read.
    """
    table = tuned_attention_table(name)
    row = table.nearest(dtype, batch, context, heads, kv_heads, head_dim, page_size) if table else None
    if row:
        return ConfigChoice(row.config, row.basis)
    return ConfigChoice(
        rule_split_config(find_arch(name), sms, dtype, pairs=batch * kv_heads, context=context, head_dim=head_dim),
        "rule",
    )
