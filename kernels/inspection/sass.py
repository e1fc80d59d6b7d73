"""Reader of SASS: basic blocks, loops, and counts of the multiplying loop.

The counts are barriers and proxy fences per iteration. The innermost loop with matrix instructions counts, else the
loop with the most multiplications. That is a linear's loop over k, and decode attention's loop over tiles of K and V:
its iterations make the time. An iteration may skip code, such as the epilogue in a persistent GEMM that takes its tiles
in one loop. The counts are therefore minima over all branches of an iteration.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import NamedTuple

# Stretches of machine code without branches, and the loops that they form.

_CODE_LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)([^;\n]*)", re.MULTILINE)
_BRANCH_TARGET = re.compile(r"([^&?]*?)\b0x([0-9a-f]+)\b")  # some disassemblers append scheduler hints


class BasicBlock(NamedTuple):
    """Consecutive instructions, with no branch into their middle or out of it.

    Attributes:
        opcodes: instructions with their suffixes.
        targets: addresses of the blocks that may come next.
    """

    opcodes: tuple[str, ...]
    targets: tuple[int, ...]


class _Instruction(NamedTuple):
    address: int
    opcode: str
    target: int | None
    falls_through: bool  # True where the next instruction may follow


def basic_blocks(sass: str) -> dict[int, BasicBlock]:
    """Return the blocks of a kernel by address, in order.

    Only BRA and EXIT leave a block: our kernels call no functions and have no jump tables.
    """
    code = [_parse_instruction(*line) for line in _CODE_LINE.findall(sass)]
    begins = {one.address for one in code[:1]} | {one.target for one in code if one.target is not None}
    begins |= {later.address for one, later in pairwise(code) if one.target is not None or not one.falls_through}
    found: dict[int, BasicBlock] = {}
    for begin, end in pairwise([*sorted(begins), code[-1].address + 1 if code else 0]):
        part = [one for one in code if begin <= one.address < end]
        if part:
            nexts = (part[-1].target, end if part[-1].falls_through else None)
            found[begin] = BasicBlock(tuple(one.opcode for one in part), tuple(at for at in nexts if at in begins))
    return found


def _parse_instruction(address: str, predicate: str, opcode: str, operands: str) -> _Instruction:
    target = _BRANCH_TARGET.match(operands.strip()) if opcode.split(".")[0] == "BRA" else None
    leaves = target is not None or opcode == "EXIT"
    conditional = bool(predicate or (target and target[1]))  # by predicate, or by an operand before the target
    return _Instruction(int(address, 16), opcode, int(target[2], 16) if target else None, conditional or not leaves)


def natural_loops(code: Mapping[int, BasicBlock]) -> dict[int, set[int]]:
    """Return the blocks of each loop by the address of its head.

    A branch closes a loop if every way to the branch has passed its target: the head. Code that the compiler has put
    after the end of a kernel, and that returns into a loop, therefore closes none.
    """
    passed = _dominators(code)
    loops: dict[int, set[int]] = {}
    for at in passed:
        for head in passed[at].intersection(code[at].targets):
            loops.setdefault(head, {head}).update(_loop_body(code, head, at))
    return loops


def _dominators(code: Mapping[int, BasicBlock]) -> dict[int, set[int]]:
    """Return the dominators of each reachable block, with the block itself.

    Every way from the start to a block passes its dominators.
    """
    first = next(iter(code), None)
    passed: dict[int, set[int]] = {} if first is None else {first: {first}}
    waiting = list(passed)
    while waiting:
        at = waiting.pop(0)
        for target in code[at].targets:
            common = passed[at] & passed.get(target, passed[at]) | {target}
            if common != passed.get(target):
                passed[target] = common
                waiting.append(target)
    return passed


def _loop_body(code: Mapping[int, BasicBlock], head: int, last: int) -> set[int]:
    """Return the blocks on the ways from a loop's head to the block that closes it."""
    found, waiting = {head}, [last]
    while waiting:
        at = waiting.pop()
        if at not in found:
            found.add(at)
            waiting += [before for before in code if at in code[before].targets]
    return found


# Classes of instructions: products, and loads with their width.

MATRIX_OPCODES = ("HGMMA", "UTCHMMA", "HMMA")
"""Matrix instructions, issued by a group of warps, by one thread, or by a warp.

HGMMA is issued by four warps, UTCHMMA by one thread for four warps, HMMA by a warp.
"""

_OPCODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)


def count_opcodes(sass: str) -> Counter[str]:
    """Return the number of each instruction in the code, with its suffixes."""
    return Counter(_OPCODE.findall(sass))


def base_opcode(opcode: str) -> str:
    """Return an instruction without its suffixes."""
    return opcode.split(".")[0]


def load_bits(opcode: str) -> int | None:
    """Return the bits that one thread loads from global memory.

    None for other instructions and for the copy engine's.
    """
    if base_opcode(opcode) not in ("LDG", "LDGSTS"):
        return None
    suffixes = opcode.split(".")[1:]
    wide = next((int(suffix) for suffix in suffixes if suffix in ("64", "128", "256")), None)
    narrow = next((int(suffix[1:]) for suffix in suffixes if suffix in ("U8", "S8", "U16", "S16")), 32)
    return wide or narrow


def summarise_opcodes(sass: str) -> dict[str, int]:
    """Return counts of matrix instructions, loads, multiply-adds and spills.

    Loads are counted by width (LDG.128).
    """
    found: Counter[str] = Counter()
    for opcode, count in count_opcodes(sass).items():
        name = base_opcode(opcode)
        if bits := load_bits(opcode):
            found[f"{name}.{bits}"] += count
        elif name in (*MATRIX_OPCODES, "UTMALDG", "FFMA", "FFMA2", "STL", "LDL"):
            found[name] += count
    return dict(found)


def narrowest_load_bits(sass: str) -> int | None:
    """Return the bits of the narrowest load of streamed data; None without any.

    Loads marked STRONG do not count. They read other programs' partial sums, lengths and page tables: few bytes next to
    the weights.
    """
    streamed = (code for code in count_opcodes(sass) if ".STRONG" not in code)
    return min((bits for code in streamed if (bits := load_bits(code))), default=None)


MULTIPLY_OPCODES = ("FFMA", "FFMA2", "FMUL", "FMUL2")
ASYNC_PROXY_OPCODES = ("HGMMA", "UTCHMMA")
"""Matrix instructions that read shared memory through the asynchronous proxy."""


@dataclass(frozen=True)
class Loop:
    """The blocks of a loop by address; each iteration begins at `head`."""

    head: int
    blocks: dict[int, BasicBlock]

    @property
    def opcodes(self) -> list[str]:
        """All instructions of the loop, with their suffixes."""
        return [opcode for block in self.blocks.values() for opcode in block.opcodes]

    @property
    def barriers(self) -> int:
        """Least number of barriers of the whole program that an iteration passes."""
        entered = self._least_before(is_barrier)
        ends = (at for at, block in self.blocks.items() if self.head in block.targets)
        return int(min(entered[at] + sum(map(is_barrier, self.blocks[at].opcodes)) for at in ends))

    @property
    def fences(self) -> int | None:
        """Least proxy fences of an iteration before a matrix instruction.

        None where no fence is needed. A fence is needed where cp.async writes data that the matrix instruction reads
        through the asynchronous proxy. The copy engine itself writes through that proxy.
        """
        if not any(base_opcode(opcode) == "LDGSTS" for opcode in self.opcodes):
            return None
        entered = self._least_before(is_fence)
        found = [
            entered[at] + fences
            for at, block in self.blocks.items()
            if (fences := _fences_before_matrix(block)) is not None
        ]
        return int(min(found)) if found else None

    def _least_before(self, counted: Callable[[str], bool]) -> dict[int, float]:
        """Return the least count between the loop's head and the beginning of each block.

        `counted` selects the counted instructions.
        """
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


def _fences_before_matrix(block: BasicBlock) -> int | None:
    """Return the fences of a block before its first asynchronous matrix instruction.

    None where the block has no such instruction.
    """
    at = next((at for at, opcode in enumerate(block.opcodes) if base_opcode(opcode) in ASYNC_PROXY_OPCODES), None)
    return None if at is None else sum(map(is_fence, block.opcodes[:at]))


def is_barrier(opcode: str) -> bool:
    """Return whether threads wait there for all other threads of their program."""
    return opcode.startswith(("BAR.SYNC", "BAR.RED"))


def is_fence(opcode: str) -> bool:
    """Return whether the instruction is a compiled `fence.proxy.async`."""
    return opcode.startswith("FENCE.VIEW.ASYNC")


def multiplying_loop(sass: str) -> Loop | None:
    """Return the innermost loop with the most matrix instructions.

    Without matrix instructions, multiplications count. None where no loop multiplies.
    """
    code = basic_blocks(sass)
    loops = [Loop(head, {at: code[at] for at in body}) for head, body in natural_loops(code).items()]
    for multiplies in (MATRIX_OPCODES, MULTIPLY_OPCODES):
        counts = [(sum(base_opcode(opcode) in multiplies for opcode in loop.opcodes), loop) for loop in loops]
        found = [(count, loop) for count, loop in counts if count]
        inner = [pair for pair in found if not any(one.blocks.keys() < pair[1].blocks.keys() for _, one in found)]
        if inner:
            return max(inner, key=lambda pair: pair[0])[1]
    return None
