"""Ahead-of-time compilation of Triton kernels for any GPU, with no GPU: registers, spills, shared memory, SASS."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from specs.archs import ARCHS
from specs.errors import UserError

TRITON_ARCHS = tuple(ARCHS)
"""Where the Triton kernels run: bf16 matrix instructions and cp.async came with sm_80."""

OPTIONS = {"enable_fp_fusion": True}
"""For every launch: a multiply-add is one instruction. Triton 3.9 warns that this default will change."""


class Variant(NamedTuple):
    """One compiled form of a Triton kernel.

    Attributes:
        fn: the `@triton.jit` function.
        signature: argument name to type, such as `{"x": "*bf16", "n": "i32"}`; constexprs are left out.
        constexprs: constexpr argument name to value.
        num_warps: warps of 32 threads a program.
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
class Compiled:
    """What the compiler made of one variant for one architecture.

    Attributes:
        arch: sm_90, …
        registers: 32-bit registers a thread.
        spill_bytes: stack and local memory a thread; 0 is what a fast kernel has.
        shared_bytes: shared memory that a program asks for; the system takes 1 KiB more.
        ptx: the intermediate code.
        sass: the machine code, below a summary of its resources.
    """

    arch: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    ptx: str = field(repr=False)
    sass: str = field(repr=False)


def check_arch(arch: str) -> None:
    """Refuse what our kernels are not made for.

    Raises:
        UserError: `arch` is none of TRITON_ARCHS.
    """
    if arch not in TRITON_ARCHS:
        raise UserError(f"cannot compile for {arch!r}; choose one of {', '.join(TRITON_ARCHS)}")


def compile_variant(variant: Variant, arch: str) -> Compiled:
    """Compile as a launch with aligned pointers and sizes divisible by 16 would.

    Arguments that the kernel marks `do_not_specialize` stay free of that promise, as they do in a launch.

    Raises:
        UserError: `arch` is none that Triton kernels are made for.
    """
    check_arch(arch)
    fn, signature, constexprs, warps, stages = variant
    promised = [p.num for p in fn.params if p.name in signature and not p.do_not_specialize]
    source = ASTSource(
        fn,
        # A launch lists constexprs in the signature too, and Triton wants it in argument order.
        {name: signature.get(name, "constexpr") for name in fn.arg_names},
        dict(constexprs),
        {(index,): [["tt.divisibility", 16]] for index in promised},
    )
    # Triton adds the "a" of sm_90a and later by itself.
    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    options = {"num_warps": warps, "num_stages": stages, **OPTIONS}
    made = triton.compile(source, target=target, options=options)
    return read_cubin(made.asm["cubin"], arch, made.metadata.shared, made.asm["ptx"])


def read_cubin(cubin: bytes, arch: str, shared_bytes: int, ptx: str = "") -> Compiled:
    """What the machine code says of itself; `shared_bytes` is what a launch asks for beyond what is in the code."""
    dump = _cuobjdump(cubin)
    usage = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", dump)}
    return Compiled(arch, usage["REG"], usage["STACK"] + usage["LOCAL"], shared_bytes, ptx, dump)


def _cuobjdump(cubin: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", "-sass", str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - the wheel's own tool
