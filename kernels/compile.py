"""Ahead-of-time compilation of Triton kernels for any GPU, without a GPU.

It gives registers, spills, shared memory and SASS.
"""

import re
import struct
import subprocess
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from kernels.triton_utils import ASTSource, GPUTarget, missing_triton, triton
from specs.errors import UserError
from specs.gpus import ARCHS

# Machine code as text, by the tools in Triton's wheel.

_INSTRUCTION_LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/.*", re.MULTILINE)


def resource_usage(cubin: bytes) -> str:
    """Return cuobjdump's text on registers, stack and memory of each function."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        return _tool_output("cuobjdump", "-res-usage", str(path))


def disassemble(cubins: Sequence[bytes], arch: str) -> list[str]:
    """Return the SASS of each cubin, all of which are for `arch`.

    Each instruction is a line that begins with its address. The disassembler takes a third of a second to start and
    milliseconds to read a kernel. All code is therefore concatenated and read at once; addresses count from the first
    cubin's code.

    Raises:
        UserError: as `check_disassembler` does.
    """
    check_disassembler(arch)
    codes = [b"".join(_code_sections(cubin)) for cubin in cubins]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "code.bin")
        path.write_bytes(b"".join(codes))
        told = _tool_output("nvdisasm", "--binary", _disassembler_name(arch), str(path))
    ends = list(accumulate(map(len, codes)))
    found: list[list[str]] = [[] for _ in codes]
    for line in _INSTRUCTION_LINE.finditer(told):
        found[bisect_right(ends, int(line[1], 16))].append(line[0])
    return ["\n".join(lines) for lines in found]


def check_disassembler(arch: str) -> None:
    """Refuse an architecture that this Triton's disassembler does not know.

    Raises:
        UserError: the disassembler does not list the architecture.
    """
    known = _disassembler_archs()
    if known and _disassembler_name(arch) not in known:
        raise UserError(f"the disassembler of triton {triton.__version__} does not know {arch}; install a newer triton")


@cache
def _disassembler_archs() -> frozenset[str]:
    """Return the architectures in the disassembler's help, such as SM90a.

    Empty where the help has another form.
    """
    return frozenset(re.findall(r"'(SM\d+\w?)'", _tool_output("nvdisasm", "--help")))


def _disassembler_name(arch: str) -> str:
    """Return the disassembler's name of an architecture.

    From sm_90 on it includes the features that only this architecture has.
    """
    number = arch.removeprefix("sm_")
    return f"SM{number}a" if int(number) >= 90 else f"SM{number}"


def _code_sections(cubin: bytes) -> Iterator[bytes]:
    """Yield the code sections of a 64-bit ELF file, in the order of its table."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + number * size) for number in range(count)]
    for name, _, _, _, offset, length in sections:
        if cubin.startswith(b".text.", sections[names][4] + name):
            yield cubin[offset : offset + length]


def _tool_output(tool: str, *arguments: str) -> str:
    if reason := missing_triton():
        raise UserError(f"{tool} comes with Triton: {reason}")
    command = (getattr(triton.knobs.nvidia, tool).path, *arguments)
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - the wheel's own tools
    return done.stdout


TRITON_ARCHS = tuple(ARCHS)
"""Architectures that the Triton kernels run on.

bf16 matrix instructions and cp.async exist from sm_80 on.
"""

LAUNCH_OPTIONS = {"enable_fp_fusion": True}
"""Options of every launch: a multiply-add is one instruction.

Triton 3.9 warns that this default will change.
"""


class TritonVariant(NamedTuple):
    """One compiled form of a Triton kernel.

    Attributes:
        fn: the `@triton.jit` function.
        signature: argument name to type, such as `{"x": "*bf16", "n": "i32"}`, without constexprs.
        constexprs: constexpr argument name to value.
        num_warps: warps of 32 threads in a program.
        num_stages: depth of the software pipeline.
    """

    fn: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    num_warps: int
    num_stages: int

    def __str__(self) -> str:
        sizes = "-".join(f"{name.lower()}{value}" for name, value in self.constexprs.items())
        return f"{next(iter(self.signature.values())).removeprefix('*')}-{sizes}"


@dataclass(frozen=True)
class CompiledKernel:
    """Compiler output for one variant on one architecture.

    Attributes:
        arch: sm_90, …
        registers: 32-bit registers of a thread.
        spill_bytes: stack and local memory of a thread; 0 in a fast kernel.
        shared_bytes: shared memory that a program asks for; the system takes 1 KiB more.
        ptx: the intermediate code.
        sass: the machine code.
    """

    arch: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    ptx: str = field(repr=False)
    sass: str = field(repr=False)


class Cubin(NamedTuple):
    """A compiler's output.

    Attributes:
        code: the ELF file.
        shared_bytes: shared memory that a launch asks for beyond that in the code.
        ptx: the intermediate code, where the compiler gives it.
    """

    code: bytes
    shared_bytes: int
    ptx: str = ""


def check_arch(arch: str) -> None:
    """Refuse an architecture that our kernels do not support.

    Raises:
        UserError: `arch` is not in TRITON_ARCHS.
    """
    if arch not in TRITON_ARCHS:
        raise UserError(f"cannot compile for {arch!r}; choose one of {', '.join(TRITON_ARCHS)}")


def compile_variant(variant: TritonVariant, arch: str) -> CompiledKernel:
    """Compile like a launch with aligned pointers and sizes divisible by 16.

    Arguments that the kernel marks `do_not_specialize` carry no such promise, as in a launch.

    Raises:
        UserError: `arch` is unknown to the Triton kernels or to the disassembler.
    """
    return compile_variants([variant], arch)[0]


def compile_variants(variants: Sequence[TritonVariant], arch: str) -> list[CompiledKernel]:
    """Compile several variants at once, much faster than singly: see `disassemble`.

    Raises:
        UserError: as `compile_variant` does.
    """
    check_arch(arch)
    check_disassembler(arch)  # before the slow compilation
    return read_cubins([build_cubin(variant, arch) for variant in variants], arch)


def build_cubin(variant: TritonVariant, arch: str) -> Cubin:
    """Return Triton's output for a variant."""
    fn, signature, constexprs, warps, stages = variant
    promised = [p.num for p in fn.params if p.name in signature and not p.do_not_specialize]
    source = ASTSource(
        fn,
        # A launch lists constexprs in the signature too, and Triton needs argument order.
        {name: signature.get(name, "constexpr") for name in fn.arg_names},
        dict(constexprs),
        {(index,): [["tt.divisibility", 16]] for index in promised},
    )
    # Triton adds the "a" of sm_90a and later itself.
    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    options = {"num_warps": warps, "num_stages": stages, **LAUNCH_OPTIONS}
    made = triton.compile(source, target=target, options=options)
    return Cubin(made.asm["cubin"], made.metadata.shared, made.asm["ptx"])


def read_cubins(cubins: Sequence[Cubin], arch: str) -> list[CompiledKernel]:
    """Return registers, spills and SASS that each cubin contains."""
    codes = disassemble([one.code for one in cubins], arch)
    return [_read_cubin(one, arch, sass) for one, sass in zip(cubins, codes, strict=True)]


def _read_cubin(cubin: Cubin, arch: str, sass: str) -> CompiledKernel:
    usage = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", resource_usage(cubin.code))}
    return CompiledKernel(arch, usage["REG"], usage["STACK"] + usage["LOCAL"], cubin.shared_bytes, cubin.ptx, sass)
