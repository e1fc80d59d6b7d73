"""Stretches of machine code without branches, and the loops that they form."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

_LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)([^;\n]*)", re.MULTILINE)
_TARGET = re.compile(r"([^&?]*?)\b0x([0-9a-f]+)\b")  # some disassemblers go on with what the scheduler is told


class Block(NamedTuple):
    """Instructions that follow each other, with no branch into their middle or out of it.

    Attributes:
        opcodes: with their suffixes.
        targets: addresses of the blocks that may come next.
    """

    opcodes: tuple[str, ...]
    targets: tuple[int, ...]


class _Instruction(NamedTuple):
    address: int
    opcode: str
    target: int | None
    goes_on: bool  # the next instruction may follow


def blocks(sass: str) -> dict[int, Block]:
    """The blocks of a kernel by address, in order.

    Only BRA and EXIT leave a block here: our kernels call no functions and have no jump tables.
    """
    code = [_instruction(*line) for line in _LINE.findall(sass)]
    begins = {one.address for one in code[:1]} | {one.target for one in code if one.target is not None}
    begins |= {later.address for one, later in pairwise(code) if one.target is not None or not one.goes_on}
    found: dict[int, Block] = {}
    for begin, end in pairwise([*sorted(begins), code[-1].address + 1 if code else 0]):
        part = [one for one in code if begin <= one.address < end]
        if part:
            nexts = (part[-1].target, end if part[-1].goes_on else None)
            found[begin] = Block(tuple(one.opcode for one in part), tuple(at for at in nexts if at in begins))
    return found


def _instruction(address: str, predicate: str, opcode: str, operands: str) -> _Instruction:
    target = _TARGET.match(operands.strip()) if opcode.split(".")[0] == "BRA" else None
    leaves = target is not None or opcode == "EXIT"
    conditional = bool(predicate or (target and target[1]))  # by predicate, or by an operand ahead of the target
    return _Instruction(int(address, 16), opcode, int(target[2], 16) if target else None, conditional or not leaves)


def natural_loops(code: Mapping[int, Block]) -> dict[int, set[int]]:
    """The blocks of each loop by the address of its head.

    A loop is closed by a branch to a block that every way to the branch has passed: its head. So code that the compiler
    has laid behind the end of a kernel, and that returns into a loop, closes none.
    """
    passed = _always_passed(code)
    loops: dict[int, set[int]] = {}
    for at in passed:
        for head in passed[at].intersection(code[at].targets):
            loops.setdefault(head, {head}).update(_between(code, head, at))
    return loops


def _always_passed(code: Mapping[int, Block]) -> dict[int, set[int]]:
    """For each block that can be reached, those that every way from the start to it passes, itself included."""
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


def _between(code: Mapping[int, Block], head: int, last: int) -> set[int]:
    """The blocks on the ways from the head of a loop to the block that closes it."""
    found, waiting = {head}, [last]
    while waiting:
        at = waiting.pop()
        if at not in found:
            found.add(at)
            waiting += [before for before in code if at in code[before].targets]
    return found
