"""Few tokens in CUDA C++: y[tokens, n] = x[tokens, k] · W[n, k]ᵀ for 1 to 4 tokens, by `csrc/gemv.cu` through CuPy.

It is here to keep the Triton kernels honest: same inputs, same checks, and every byte in flight asked for by hand.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kernels.compile import TRITON_ARCHS, CompiledKernel, Cubin, check_arch, read_cubins
from kernels.linear import TORCH_LINEAR
from kernels.operands import check_operands, dtype_name
from specs.errors import UserError
from specs.units import ITEMSIZE

# Ahead-of-time compilation of CUDA C++ for any GPU, with no GPU and no driver, by nvcc or by NVRTC.

CPP_STANDARD = "-std=c++17"


def compile_cuda(source: Path, macros: Mapping[str, int], arch: str, shared_bytes: int) -> CompiledKernel:
    """Compile one file that includes nothing.

    Args:
        source: the CUDA C++ file.
        macros: what to define.
        arch: sm_90, …
        shared_bytes: dynamic shared memory that a launch will ask for.

    Raises:
        UserError: `arch` is none that our kernels are made for, there is no compiler, or it refuses.
    """
    check_arch(arch)
    nvcc = find_nvcc()
    cubin, ptx = (
        compile_with_nvcc(nvcc, source, macros, arch) if nvcc else (compile_with_nvrtc(source, macros, arch), "")
    )
    return read_cubins([Cubin(cubin, shared_bytes, ptx)], arch)[0]


def find_nvcc() -> str | None:
    """The toolkit's compiler, from the PATH or from CUDA_HOME."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc") or (shutil.which("nvcc", path=str(Path(home, "bin"))) if home else None)


def compile_with_nvcc(nvcc: str, source: Path, macros: Mapping[str, int], arch: str) -> tuple[bytes, str]:
    """Machine code and PTX.

    Raises:
        UserError: nvcc failed; what it says is passed on, such as an architecture that is newer than it.
    """
    defined = [f"-D{name}={value}" for name, value in macros.items()]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.cubin")
        kept = ["--keep", "--keep-dir", folder, "-o", str(out), str(source)]
        command = [nvcc, "-cubin", f"-arch={arch}", CPP_STANDARD, *defined, *kept]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - NVIDIA's compiler
        if done.returncode != 0:
            raise UserError(
                f"{nvcc} cannot compile {source.name} for {arch}: {_first_error(done.stderr + done.stdout)}"
            )
        return out.read_bytes(), Path(folder, source.stem).with_suffix(".ptx").read_text()


def compile_with_nvrtc(source: Path, macros: Mapping[str, int], arch: str) -> bytes:
    """Machine code alone: for PTX cuda.core asks the driver whether it could load it.

    Raises:
        UserError: NVRTC is not installed, or it failed.
    """
    try:
        from cuda.core import Program, ProgramOptions
    except ImportError:
        raise UserError(
            "compiling CUDA C++ with no GPU takes nvcc on the PATH (or CUDA_HOME), or NVRTC: "
            "pip install -c constraints.txt cuda-core cuda-bindings nvidia-cuda-nvrtc"
        ) from None
    defined = [(name, str(value)) for name, value in macros.items()]
    options = ProgramOptions(arch=arch, std=CPP_STANDARD.removeprefix("-std="), define_macro=defined or None)
    try:
        return bytes(Program(source.read_text("utf-8"), "c++", options).compile("cubin").code)
    except Exception as error:  # cuda.core has no base class for what NVRTC says
        raise UserError(f"NVRTC cannot compile {source.name} for {arch}: {_first_error(str(error))}") from error


def _first_error(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return next((line for line in lines if ": error" in line), lines[0] if lines else "it gave no reason")


SOURCE_PATH = Path(__file__).parent / "csrc" / "gemv.cu"
FORMAT_MACROS = {"bf16": 1, "fp16": 2, "fp32": 3}
"""What the source calls them."""

SUPPORTED_TOKENS = range(1, 5)
CHUNK_BYTES = 16
"""The widest load of one thread into shared memory."""

WARPS = 4
RING_BYTES = 32 * 1024
"""Of W that a CTA has asked for: two CTAs an SM pass the 40 KiB that memory takes to stay busy, and most SMs hold more.

With the partial sums it stays below the 48 KiB that a launch gets without asking, and 1280 rows still make 320 CTAs.
"""

EIGHT_ROWS_MIN_N = 4096
"""Rows of W from which CTAs of eight make at least three for each of 132 SMs."""


class GemvVariant(NamedTuple):
    """One compiled form of the source.

    Attributes:
        dtype: of all operands.
        tokens: exactly those of the call.
        rows: rows of W that a CTA owns.
        warps: of a CTA, side by side along k.
        stages: steps along k that are in flight.
        vector: whether 16 bytes are loaded at a time; False for rows that begin elsewhere than at their multiples.
    """

    dtype: str
    tokens: int
    rows: int
    warps: int
    stages: int
    vector: bool

    def __str__(self) -> str:
        loads = "" if self.vector else " scalar"
        return f"{self.rows}x{self.tokens} w{self.warps} s{self.stages}{loads}"

    @property
    def threads(self) -> int:
        """Threads of a CTA."""
        return 32 * self.warps

    @property
    def macros(self) -> dict[str, int]:
        """What the source is compiled with."""
        sizes = {"TOKENS": self.tokens, "ROWS": self.rows, "WARPS": self.warps, "STAGES": self.stages}
        return {"FORMAT": FORMAT_MACROS[self.dtype], **sizes, "VECTOR": int(self.vector)}

    def ring_bytes(self, k: int | None = None) -> int:
        """Shared memory that rows of k elements (None: long ones) are streamed through."""
        stages = self.stages
        if k is not None:
            stages = min(stages, -(-k * ITEMSIZE[self.dtype] // (self.threads * CHUNK_BYTES)))
        return stages * self.rows * self.threads * CHUNK_BYTES

    def shared_bytes(self, k: int | None = None) -> int:
        """Dynamic shared memory of a launch: the ring, and a partial sum for each warp, row and token (4 for 3)."""
        return self.ring_bytes(k) + 4 * self.warps * self.rows * (4 if self.tokens == 3 else self.tokens)


def choose_variant(*, tokens: int, n: int, dtype: str, vector: bool = True) -> GemvVariant:
    """The form for a shape.

    x is read once for every CTA, through L1 where it fits: tokens / rows bytes of it for a byte of W. So from two
    tokens on eight rows share it, unless that leaves SMs with less than three CTAs. A step of four rows is
    4 x 128 threads x 16 bytes = 8 KiB of W, one of eight is 16: four and two of them are RING_BYTES.
    """
    rows = 8 if tokens > 1 and n >= EIGHT_ROWS_MIN_N else 4
    return GemvVariant(dtype, tokens, rows, WARPS, RING_BYTES // (rows * 32 * WARPS * CHUNK_BYTES), vector)


def variants(dtype: str) -> list[GemvVariant]:
    """Every compiled form that `tile` can choose."""
    sizes = [
        (tokens, n, vector)
        for vector in (True, False)
        for tokens in SUPPORTED_TOKENS
        for n in (EIGHT_ROWS_MIN_N - 1, EIGHT_ROWS_MIN_N)
    ]
    return list(
        dict.fromkeys(choose_variant(tokens=tokens, n=n, dtype=dtype, vector=vector) for tokens, n, vector in sizes)
    )


def bytes_in_flight(variant: GemvVariant, k: int | None = None) -> int:
    """Bytes of W that a CTA has asked memory for and not yet got, for rows of k elements (None: long ones).

    0 for scalar loads: they pass through registers, as many at a time as the compiler sees fit.
    """
    if not variant.vector:
        return 0
    ring = variant.ring_bytes(k)
    return ring if k is None else min(ring, variant.rows * k * ITEMSIZE[variant.dtype])


def compile_gemv(variant: GemvVariant, arch: str) -> CompiledKernel:
    """A form compiled for an architecture, with no GPU.

    Raises:
        UserError: as `kernels.cuda_gemv.compile_cuda` does.
    """
    return compile_cuda(SOURCE_PATH, variant.macros, arch, variant.shared_bytes())


def missing() -> str | None:
    """One line where CuPy cannot be imported."""
    try:
        import cupy  # noqa: F401 - whether it can be is the question
    except Exception as error:  # an installation that does not fit raises more than ImportError
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        return f"cuda_gemv needs CuPy: pip install -c constraints.txt .[cu13] ({reason})"
    return None


@cache
def _load_kernel(variant: GemvVariant, device: int) -> Any:
    """The compiled kernel on a device: first calls compile and load it, so that later ones can be captured."""
    import cupy

    options = (CPP_STANDARD, *(f"-D{name}={value}" for name, value in variant.macros.items()))
    with cupy.cuda.Device(device):
        kernel = cupy.RawModule(code=SOURCE_PATH.read_text("utf-8"), options=options).get_function("gemv")
        if variant.shared_bytes() > 48 * 1024:  # more than any launch gets unasked
            kernel.max_dynamic_shared_size_bytes = variant.shared_bytes()
    return kernel


@cache
def _cupy_stream(handle: int, device: int) -> Any:
    """CuPy's name for a stream of torch's."""
    import cupy

    return cupy.cuda.ExternalStream(handle, device)  # cached, for CuPy 14 warns at each one made


def run(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """One pass over W for all tokens, on torch's current stream.

    Raises:
        UserError: more than 4 tokens, a dtype without a form, operands that are strided or do not fit together, or
            CuPy is missing.
    """
    tokens, n, k = check_operands(x, weight, out)
    if tokens not in SUPPORTED_TOKENS:
        raise UserError(f"{tokens} tokens; cuda_gemv takes 1 to {SUPPORTED_TOKENS[-1]}, so use triton_skinny")
    dtype = dtype_name(x, "cuda_gemv", FORMAT_MACROS)
    reason = missing()
    if reason is not None:
        raise UserError(reason)
    import cupy

    vector = (k * x.element_size() | x.data_ptr() | weight.data_ptr()) % CHUNK_BYTES == 0
    form = choose_variant(tokens=tokens, n=n, dtype=dtype, vector=vector)
    stream = torch.cuda.current_stream(x.device)
    device = stream.device_index
    kernel = _load_kernel(form, device)
    with cupy.cuda.Device(device), _cupy_stream(stream.cuda_stream, device):
        pointers = (x.data_ptr(), weight.data_ptr(), out.data_ptr())
        kernel((-(-n // form.rows),), (form.threads,), (*pointers, n, k), shared_mem=form.shared_bytes(k))


def configuration(*, dtype: str, tokens: int, n: int, **_: object) -> str:
    """The form for a shape whose rows begin at multiples of 16 bytes, for the record."""
    return f"{choose_variant(tokens=tokens, n=n, dtype=dtype)} (rule)"


CUDA_GEMV = replace(
    TORCH_LINEAR,
    name="cuda_gemv",
    implementation="cuda",
    run=run,
    archs=TRITON_ARCHS,
    tokens=SUPPORTED_TOKENS,
    missing=missing,
    configuration=configuration,
)
