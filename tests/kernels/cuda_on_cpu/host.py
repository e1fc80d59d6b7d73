"""Compiles a CUDA C++ file for this machine's processor, and stands in for CuPy to launch it there."""

import ctypes
import shutil
import subprocess
import tempfile
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

HERE = Path(__file__).parent
GXX = shutil.which("g++")
needs_gxx = pytest.mark.skipif(GXX is None, reason="g++ is not installed")
GUARD = 64
"""Elements before and behind each operand: whole 16 bytes in every dtype, so that they keep its alignment."""


@cache
def _folder():
    folder = tempfile.TemporaryDirectory(prefix="cuda_on_cpu_")
    _g("-c", "fibers.cpp", "-o", f"{folder.name}/fibers.o")
    return folder


def _g(*arguments):
    # Sums are contracted where the source says fmaf and nowhere else, as ours must not depend on it.
    command = [GXX, "-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@cache
def library(code, macros):
    """The shared library of a source with macros such as ("-DTOKENS=1", …)."""
    folder = Path(_folder().name)
    name = folder / f"{abs(hash((code, macros)))}.so"
    source = name.with_suffix(".cpp")
    source.write_text(code, "utf-8")
    _g("-shared", "-include", "shim.h", *macros, str(source), str(folder / "fibers.o"), "-o", str(name))
    return ctypes.CDLL(str(name))


def guarded(tensor, shift=0):
    """A copy of `tensor` within NaNs, `shift` elements off its alignment; and the whole that it is a view of."""
    whole = torch.full((tensor.numel() + 2 * GUARD + shift,), float("nan"), dtype=tensor.dtype)
    view = whole[GUARD + shift : GUARD + shift + tensor.numel()].view(tensor.shape)
    view.copy_(tensor)
    return view, whole


def bits(tensor):
    """A tensor's elements as integers, which tell one NaN from another."""
    return tensor.view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


class OnCpu:
    """What `kernels/cuda_gemv.py` uses of CuPy, for operands on the CPU.

    Args:
        monkeypatch: puts it in CuPy's place, and a stream in torch's.
        operands: everything that a launch may read or write.
        fault: (old, new) text to swap in the source, to plant a fault.
    """

    def __init__(self, monkeypatch, *operands, fault=None):
        self.launches, self.compiled, self.entered = [], [], []
        self._bytes = {one.data_ptr(): one.nbytes for one in operands}
        self._fault = fault
        self.cuda = SimpleNamespace(Device=self._enter("device"), ExternalStream=self._enter("stream"))
        monkeypatch.setitem(__import__("sys").modules, "cupy", self)
        stream = SimpleNamespace(cuda_stream=7, device_index=3)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)

    def _enter(self, what):
        def enter(*arguments) -> AbstractContextManager[None]:
            self.entered.append((what, *arguments))
            return nullcontext()

        return enter

    def RawModule(self, *, code, options):  # noqa: N802 - CuPy's name
        self.compiled.append(options)
        if self._fault:
            assert self._fault[0] in code, "the fault is not planted"
            code = code.replace(*self._fault)
        return SimpleNamespace(get_function=lambda name: self._kernel(library(code, options), name))

    def _kernel(self, loaded, name):
        def launch(grid, block, args, *, shared_mem):
            self.launches.append((grid, block, args, shared_mem))
            x, weight, out, n, k = args
            call = loaded.launch
            call.restype = ctypes.c_char_p
            pointers = [ctypes.c_void_p(x), ctypes.c_int64(self._bytes[x])]
            pointers += [ctypes.c_void_p(weight), ctypes.c_int64(self._bytes[weight]), ctypes.c_void_p(out)]
            kernel = ctypes.c_void_p(ctypes.cast(getattr(loaded, name), ctypes.c_void_p).value)
            said = call(kernel, grid[0], block[0], shared_mem, *pointers, ctypes.c_int64(n), ctypes.c_int64(k))
            assert said is None, f"the kernel {said.decode()}"

        return launch
