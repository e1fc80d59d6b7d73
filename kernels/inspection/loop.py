"""The loop of machine code that multiplies: the barriers and the proxy fences that each iteration passes.

The innermost loop with matrix instructions counts, else the one with the most multiplications. That is the loop over k
of a linear, and the loop over tiles of K and V of decode attention: the number of its iterations makes the time.

An iteration may skip code, such as the epilogue in a persistent GEMM that takes its tiles in one loop. So the counts
are the least that an iteration can pass, over all branches that it may take.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from kernels.inspection.control_flow import Block, blocks, natural_loops
from kernels.inspection.machine_code import MATRIX, family

MULTIPLIES = ("FFMA", "FFMA2", "FMUL", "FMUL2")
BY_PROXY = ("HGMMA", "UTCHMMA")
"""Matrix instructions that read shared memory through the asynchronous proxy."""


@dataclass(frozen=True)
class Loop:
    """The blocks of a loop by address of their first instruction; `head` is where each iteration begins."""

    head: int
    blocks: dict[int, Block]

    @property
    def opcodes(self) -> list[str]:
        """All instructions of the loop, with their suffixes."""
        return [opcode for block in self.blocks.values() for opcode in block.opcodes]

    @property
    def barriers(self) -> int:
        """Barriers of the whole program that each iteration passes at least."""
        entered = self._entered(is_barrier)
        ends = (at for at, block in self.blocks.items() if self.head in block.targets)
        return int(min(entered[at] + sum(map(is_barrier, self.blocks[at].opcodes)) for at in ends))

    @property
    def fences(self) -> int | None:
        """Proxy fences that each iteration passes before a matrix instruction; None where it needs none.

        One is needed where cp.async writes what the matrix instruction reads through the asynchronous proxy. The copy
        engine writes through that proxy itself.
        """
        if not any(family(opcode) == "LDGSTS" for opcode in self.opcodes):
            return None
        entered = self._entered(is_fence)
        found = [entered[at] + fences for at, block in self.blocks.items() if (fences := _ahead(block)) is not None]
        return int(min(found)) if found else None

    def _entered(self, counted: Callable[[str], bool]) -> dict[int, float]:
        """The least of `counted` between the head of the loop and the beginning of each block."""
        least = dict.fromkeys(self.blocks, inf) | {self.head: 0}
        waiting = [self.head]
        while waiting:
            at = waiting.pop()
            passed = least[at] + sum(map(counted, self.blocks[at].opcodes))
            for target in self.blocks[at].targets:
                if passed < least.get(target, -inf):
                    least[target] = passed
                    waiting.append(target)
        return least


def _ahead(block: Block) -> int | None:
    """Proxy fences of a block before its first matrix instruction that needs one; None where it has none of those."""
    at = next((at for at, opcode in enumerate(block.opcodes) if family(opcode) in BY_PROXY), None)
    return None if at is None else sum(map(is_fence, block.opcodes[:at]))


def is_barrier(opcode: str) -> bool:
    """Whether threads wait there for all others of their program."""
    return opcode.startswith(("BAR.SYNC", "BAR.RED"))


def is_fence(opcode: str) -> bool:
    """Whether it is what `fence.proxy.async` becomes."""
    return opcode.startswith("FENCE.VIEW.ASYNC")


def multiplying_loop(sass: str) -> Loop | None:
    """The innermost loop with the most matrix instructions, else multiplications; None where no loop multiplies."""
    code = blocks(sass)
    loops = [Loop(head, {at: code[at] for at in body}) for head, body in natural_loops(code).items()]
    for multiplies in (MATRIX, MULTIPLIES):
        counts = [(sum(family(opcode) in multiplies for opcode in loop.opcodes), loop) for loop in loops]
        found = [(count, loop) for count, loop in counts if count]
        inner = [pair for pair in found if not any(one.blocks.keys() < pair[1].blocks.keys() for _, one in found)]
        if inner:
            return max(inner, key=lambda pair: pair[0])[1]
    return None
