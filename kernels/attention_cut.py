"""How decode attention is cut into programs, and the rule that cuts what no table covers, by architecture and SMs.

A step is one tile of K and V: 32 KiB, or 16 where an SM has only 100 KiB of shared memory. Either leaves room for two
programs of three stages an SM, which is what keeps its memory busy while one of them is in its softmax.
"""

from functools import cache
from math import ceil
from typing import NamedTuple

import torch

from kernels.tuning.choice import WITHOUT_GPU
from specs.gpus import Arch
from specs.gpus import arch as find_arch
from specs.units import ITEMSIZE

FAN = 16
"""Parts that one program adds up. Where there are more, their sums are added up likewise: so 256 at most."""
LEAST_STEPS = 2
"""Steps that a part has at least, so that one tile is on its way while the other is worked on."""
START_STEPS, MERGE_STEPS = 1, 2
"""What a program costs beside its steps: to begin, and for each time that partial results are added up, of which 16
are 64 KiB."""
PER_SM = 2
"""Programs that are meant to work on an SM at once."""


class Cut(NamedTuple):
    """One way to cut a call into programs.

    Attributes:
        block: tokens of K and V that a program takes at a time.
        warps: of a program.
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
    def levels(self) -> int:
        """How often partial results are added up: not at all, once, or groups of 16 and then their sums."""
        return levels(self.split)

    def in_flight_bytes(self, dtype: str, head_dim: int) -> int:
        """Bytes of K and V that a program has asked for and not yet got while it works on a tile.

        Triton keeps a buffer less than there are stages and fills the one just read at the end of a step.
        """
        return 2 * self.block * head_dim * ITEMSIZE[dtype] * (self.stages - 2)

    def cells(self, pairs: int) -> int:
        """Partial results that one call passes between programs, of `pairs` of a sequence and a kv head."""
        return pairs * (self.split + ceil(self.split / FAN)) if self.levels else 0

    def counters(self, pairs: int) -> int:
        """Counters of arrivals that one call needs."""
        return pairs * (ceil(self.split / FAN) + 1) if self.levels else 0


def levels(split: int) -> int:
    """How often the results of `split` parts are added up."""
    return 0 if split == 1 else 1 if split <= FAN else 2


def tile(on: Arch, dtype: str, head_dim: int) -> Cut:
    """Whole sequences in the tile that the shared memory of an SM allows."""
    tile_bytes = 2**15 if on.shared_bytes >= 2**17 else 2**14
    return Cut(block=tile_bytes // (2 * head_dim * ITEMSIZE[dtype]), warps=4, stages=3)


@cache
def split(pairs: int, steps: int, sms: int) -> int:
    """Programs that share each of `pairs` of a sequence and a kv head, whose longest has `steps` steps.

    Of all splits the one whose programs are through first, the fewest parts of those: they take turns of PER_SM on
    every SM, and each turn lasts as long as the steps of a part with what a program costs beside them.
    """

    def duration(parts: int) -> int:
        turns = ceil(pairs * parts / (PER_SM * sms))
        return turns * (ceil(steps / parts) + START_STEPS + MERGE_STEPS * levels(parts))

    return min(range(1, max(1, min(FAN * FAN, steps // LEAST_STEPS)) + 1), key=duration)


def rule(on: Arch, sms: int, dtype: str, *, pairs: int, context: int, head_dim: int) -> Cut:
    """The cut of `pairs` of a sequence and a kv head, each of `context` tokens, on a GPU of `sms` SMs."""
    one = tile(on, dtype, head_dim)
    return one._replace(split=split(pairs, ceil(context / one.block), sms))


@cache
def sms_of(device: torch.device) -> int:
    """SMs of a device; without a GPU those of the one whose configurations CPU tensors take."""
    if device.type != "cuda":
        return sms_of_arch(WITHOUT_GPU)
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def sms_of_arch(name: str) -> int:
    """SMs of the GPU that stands for an architecture."""
    sms = find_arch(name).representative.sms
    assert sms is not None  # noqa: S101 - each of them has a count in its datasheet
    return sms
