"""Machine code as text, by the tools that Triton's wheel carries."""

import re
import struct
import subprocess
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path

from kernels.triton_utils import missing_triton, triton
from specs.errors import UserError

_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/.*", re.MULTILINE)


def resources(cubin: bytes) -> str:
    """Registers, stack and memory of each function, as cuobjdump prints them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        return _said("cuobjdump", "-res-usage", str(path))


def disassemble(cubins: Sequence[bytes], arch: str) -> list[str]:
    """The SASS of each cubin, all of which are for `arch`: a line an instruction, which begins with its address.

    The disassembler takes a third of a second to start and milliseconds to read a kernel, so all code is laid end to
    end and read at once; addresses count from the first cubin's code.

    Raises:
        UserError: as `check_disassembler` does.
    """
    check_disassembler(arch)
    codes = [b"".join(_texts(cubin)) for cubin in cubins]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "code.bin")
        path.write_bytes(b"".join(codes))
        told = _said("nvdisasm", "--binary", _name(arch), str(path))
    ends = list(accumulate(map(len, codes)))
    found: list[list[str]] = [[] for _ in codes]
    for line in _INSTRUCTION.finditer(told):
        found[bisect_right(ends, int(line[1], 16))].append(line[0])
    return ["\n".join(lines) for lines in found]


def check_disassembler(arch: str) -> None:
    """Refuse an architecture that the disassembler of this Triton does not know.

    Raises:
        UserError: it does not list the architecture.
    """
    known = _known()
    if known and _name(arch) not in known:
        raise UserError(f"the disassembler of triton {triton.__version__} does not know {arch}; install a newer triton")


@cache
def _known() -> frozenset[str]:
    """Architectures that the disassembler's help lists: SM90a, …; none where it has another form of help."""
    return frozenset(re.findall(r"'(SM\d+\w?)'", _said("nvdisasm", "--help")))


def _name(arch: str) -> str:
    """The disassembler's name of an architecture, with what this generation alone has."""
    number = arch.removeprefix("sm_")
    return f"SM{number}a" if int(number) >= 90 else f"SM{number}"


def _texts(cubin: bytes) -> Iterator[bytes]:
    """What its sections of code hold, in the order of a 64-bit ELF file's table."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + number * size) for number in range(count)]
    for name, _, _, _, offset, length in sections:
        if cubin.startswith(b".text.", sections[names][4] + name):
            yield cubin[offset : offset + length]


def _said(tool: str, *arguments: str) -> str:
    if reason := missing_triton():
        raise UserError(f"{tool} comes with Triton: {reason}")
    command = (getattr(triton.knobs.nvidia, tool).path, *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - the wheel's own tools
