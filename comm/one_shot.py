"""One-shot all-reduce in Triton over symmetric memory.

It computes out[elements] = sum over ranks of message[elements]. Every rank puts its message where all ranks can read
it, then adds up all messages itself. This takes one step over the links, where a ring takes 2 (ranks − 1). It suits the
small messages of decode, whose time is latency.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

MOST_BYTES = 2**20
"""Longest message.

Each rank reads ranks − 1 whole messages, where a two-shot reads and writes (ranks − 1) / ranks of one. Beyond this size
the extra bytes cost more than the second step. Every GPU with a link can also run MAX_TILES tiles at once.
"""
TILE_BYTES = 8192
"""Bytes of a program's tile: 16 for each of its threads."""
WARPS = 16
MAX_TILES = MOST_BYTES // TILE_BYTES
FLAGS_OFFSET = 2 * MOST_BYTES
"""Offset of the flags in a buffer, after the two slots."""


# The flag protocol. Program b of all ranks is a channel of its own. In every rank's buffer it has a tile in each of the
# two slots, and one flag for each rank. It also has a counter of its calls, the epoch. In a call it
# 1. takes the next epoch, and writes its tile of the message into slot `epoch mod 2` of its own buffer;
# 2. writes the epoch into its flag at every rank, with `release` at system scope, after the program's barrier: a reader
#    of this flag sees the tile of all threads, also across a link;
# 3. waits until each rank's flag in its own buffer has reached the epoch, with `acquire` at system scope, and a barrier
#    again: no thread reads a tile before that. A flag may be ahead by 1, since a finished rank starts its next call;
# 4. adds up the tiles of all ranks in the order of ranks, in fp32: the bits are equal on all ranks and in all runs.
# One barrier per call is enough since there are two slots. Slot `epoch mod 2` is written again in call epoch + 2, after
# that rank has seen all flags of epoch + 1. A rank raises its flag of epoch + 1 only after its call `epoch` has ended,
# with all its reads, since calls share a stream. With one slot a fast rank would overwrite data that a slow rank still
# reads, and a second barrier would be needed. Flags are never cleared: they only grow. The epoch lives in the device's
# memory, where a replayed CUDA graph finds the value of the previous call; its 32 bits may wrap.
@triton.jit(do_not_specialize=["rank"])
def _one_shot(
    message: tl.tensor,
    out: tl.tensor,
    buffers: tl.tensor,
    epochs: tl.tensor,
    elements: int,
    rank: int,
    RANKS: tl.constexpr,
    PADDED: tl.constexpr,
    SLOT: tl.constexpr,
    FLAGS_AT: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    kind: tl.constexpr = tl.pointer_type(message.dtype.element_ty)
    program = tl.program_id(0)
    offset = program * TILE + tl.arange(0, TILE)
    inside = offset < elements
    epoch = tl.load(epochs + program) + 1
    place = (epoch & 1) * SLOT + offset

    own = tl.multiple_of(tl.load(buffers + rank).to(kind), 16)
    tl.store(own + place, tl.load(message + offset, mask=inside), mask=inside)
    tl.debug_barrier()

    peer = tl.arange(0, PADDED)
    there = peer < RANKS
    flags = (tl.load(buffers + peer, mask=there, other=0) + FLAGS_AT).to(tl.pointer_type(tl.int32)) + program * RANKS
    tl.atomic_xchg(flags + rank, epoch, mask=there, sem="release", scope="sys")
    home = (tl.load(buffers + rank) + FLAGS_AT).to(tl.pointer_type(tl.int32)) + program * RANKS + peer
    behind = -1
    while behind < 0:
        flag = tl.atomic_add(home, 0, mask=there, sem="acquire", scope="sys")
        behind = tl.min(tl.where(there, flag - epoch, 0))  # a difference, which stays right when epochs wrap
    tl.debug_barrier()

    total = tl.zeros([TILE], tl.float32)
    for source in tl.static_range(RANKS):
        theirs = tl.multiple_of(tl.load(buffers + source).to(kind), 16)
        # .cg: never out of L1, which does not hear of what others write
        total += tl.load(theirs + place, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
    tl.store(out + offset, total, mask=inside)
    tl.store(epochs + program, epoch)


def buffer_bytes(ranks: int) -> int:
    """Return the bytes that each rank shares: two slots and the flags.

    They must be zero before the first call.
    """
    return FLAGS_OFFSET + 4 * MAX_TILES * ranks


class OneShotAllReduce:
    """The all-reduce of one rank.

    A call allocates nothing, so it can be captured. All calls must be on one stream.

    Args:
        rank: number of this rank.
        buffers: for each rank the address, in this process, of `buffer_bytes` zeros that all ranks can reach.
        device: device of this rank.
        epoch: calls that all ranks have made on these buffers.
    """

    def __init__(self, rank: int, buffers: Sequence[int], device: torch.device, epoch: int = 0) -> None:
        self._rank, self._ranks = rank, len(buffers)
        self._buffers = torch.tensor(buffers, dtype=torch.int64, device=device)
        self._epochs = torch.full((MAX_TILES,), epoch, dtype=torch.int32, device=device)

    def __call__(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Write the sum over ranks of message[elements] to `out`; at most MOST_BYTES."""
        tile = TILE_BYTES // message.element_size()
        _one_shot[(triton.cdiv(message.numel(), tile),)](
            message,
            out,
            self._buffers,
            self._epochs,
            message.numel(),
            self._rank,
            RANKS=self._ranks,
            PADDED=triton.next_power_of_2(self._ranks),
            SLOT=MOST_BYTES // message.element_size(),
            FLAGS_AT=FLAGS_OFFSET,
            TILE=tile,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
