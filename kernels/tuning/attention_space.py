"""The cuts of decode attention that are worth a try for a shape, those next to the rule's first."""

from itertools import product
from math import ceil

from kernels.attention_cut import FAN, Cut, rule, split
from kernels.decode_attention import rows
from kernels.tuning.attention_shape import AttentionShape
from kernels.tuning.space import apart
from specs.gpus import Arch
from specs.units import ITEMSIZE

BLOCKS = (32, 64, 128)
WARPS = (2, 4, 8)
STAGES = (2, 3, 4)


def candidates(on: Arch, sms: int, shape: AttentionShape) -> list[Cut]:
    """The rule's cut, then all tiles that a program has room for, each in half, as many and twice the rule's parts."""
    first = rule(on, sms, shape.dtype, pairs=shape.pairs, context=shape.context, head_dim=shape.head_dim)
    found = [first]
    for block, warps, stages in product(BLOCKS, WARPS, STAGES):
        steps = ceil(shape.context / block)
        by_rule = split(shape.pairs, steps, sms)
        around = (max(1, by_rule // 2), by_rule, min(2 * by_rule, steps, FAN * FAN))
        found += [Cut(block, warps, stages, parts) for parts in around]
    fitting = [cut for cut in found if shared_bytes(cut, shape) <= on.shared_bytes_per_block]
    return sorted(dict.fromkeys(fitting), key=lambda cut: apart(first, cut))


def shared_bytes(cut: Cut, shape: AttentionShape) -> int:
    """Shared memory of a program: a tile of K and V less than there are stages, its queries and their weights."""
    width = 2 * cut.block * shape.head_dim * (cut.stages - 1) + rows(shape.group) * (shape.head_dim + cut.block)
    return width * ITEMSIZE[shape.dtype]
