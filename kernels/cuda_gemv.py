"""The linear in CUDA C++ for 1 to 4 tokens, by `csrc/gemv.cu` through CuPy.

It computes y[tokens, n] = x[tokens, k] · W[n, k]ᵀ, and is the baseline for the Triton kernels. Inputs and checks are
the same; every byte in flight is requested by hand.
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

# Ahead-of-time compilation of CUDA C++ for any GPU, without GPU and driver, by nvcc or NVRTC.

CPP_STANDARD = "-std=c++17"


def compile_cuda(source: Path, macros: Mapping[str, int], arch: str, shared_bytes: int) -> CompiledKernel:
    """Compile one file that includes no other file.

    Args:
        source: the CUDA C++ file.
        macros: macros to define.
        arch: sm_90, …
        shared_bytes: dynamic shared memory that a launch will ask for.

    Raises:
        UserError: our kernels do not support `arch`, there is no compiler, or it fails.
    """
    check_arch(arch)
    nvcc = find_nvcc()
    cubin, ptx = (
        compile_with_nvcc(nvcc, source, macros, arch) if nvcc else (compile_with_nvrtc(source, macros, arch), "")
    )
    return read_cubins([Cubin(cubin, shared_bytes, ptx)], arch)[0]


def find_nvcc() -> str | None:
    """Return the toolkit's compiler, from the PATH or from CUDA_HOME; else None."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc") or (shutil.which("nvcc", path=str(Path(home, "bin"))) if home else None)


def compile_with_nvcc(nvcc: str, source: Path, macros: Mapping[str, int], arch: str) -> tuple[bytes, str]:
    """Return machine code and PTX.

    Raises:
        UserError: nvcc failed; its message is passed on, such as an architecture that is newer than nvcc.
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
    """Return machine code; for PTX cuda.core would need the driver.

    cuda.core asks the driver whether it can load PTX.

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
    except Exception as error:  # cuda.core has no base class for NVRTC's errors
        raise UserError(f"NVRTC cannot compile {source.name} for {arch}: {_first_error(str(error))}") from error


def _first_error(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return next((line for line in lines if ": error" in line), lines[0] if lines else "it gave no reason")


SOURCE_PATH = Path(__file__).parent / "csrc" / "gemv.cu"
FORMAT_MACROS = {"bf16": 1, "fp16": 2, "fp32": 3}
"""Numbers of the formats in the source."""

SUPPORTED_TOKENS = range(1, 5)
CHUNK_BYTES = 16
"""Bytes of the widest load of one thread into shared memory."""

WARPS = 4
RING_BYTES = 32 * 1024
"""Bytes of W that a CTA has in flight.

Memory needs 40 KiB per SM to stay busy: two CTAs exceed that, and most SMs hold more CTAs. With the partial sums a CTA
stays below the 48 KiB that a launch gets without asking. 1280 rows still make 320 CTAs.
"""

EIGHT_ROWS_MIN_N = 4096
"""Rows of W from which CTAs of eight rows make at least 3 for each of 132 SMs."""


class GemvVariant(NamedTuple):
    """One compiled form of the source.

    Attributes:
        dtype: dtype of all operands.
        tokens: exact token count of the call.
        rows: rows of W that a CTA owns.
        warps: warps of a CTA, side by side along k.
        stages: steps along k that are in flight.
        vector: True where loads have 16 bytes; False for rows that do not begin at multiples of 16.
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
        """Macros that the source is compiled with."""
        sizes = {"TOKENS": self.tokens, "ROWS": self.rows, "WARPS": self.warps, "STAGES": self.stages}
        return {"FORMAT": FORMAT_MACROS[self.dtype], **sizes, "VECTOR": int(self.vector)}

    def ring_bytes(self, k: int | None = None) -> int:
        """Return the shared memory that stages rows of k elements (None: long rows)."""
        stages = self.stages
        if k is not None:
            stages = min(stages, -(-k * ITEMSIZE[self.dtype] // (self.threads * CHUNK_BYTES)))
        return stages * self.rows * self.threads * CHUNK_BYTES

    def shared_bytes(self, k: int | None = None) -> int:
        """Return the dynamic shared memory of a launch.

        It holds the ring, and a partial sum for each warp, row and token (4 for 3).
        """
        return self.ring_bytes(k) + 4 * self.warps * self.rows * (4 if self.tokens == 3 else self.tokens)


def choose_variant(*, tokens: int, n: int, dtype: str, vector: bool = True) -> GemvVariant:
    """Return the form for a shape.

    Every CTA reads x once, through L1 where it fits: tokens / rows bytes of x per byte of W. From two tokens on eight
    rows therefore share x, unless SMs would get fewer than three CTAs. A step of four rows is 4 x 128 threads x 16
    bytes = 8 KiB of W, a step of eight rows 16 KiB. Four and two such steps are RING_BYTES.
    """
    rows = 8 if tokens > 1 and n >= EIGHT_ROWS_MIN_N else 4
    return GemvVariant(dtype, tokens, rows, WARPS, RING_BYTES // (rows * 32 * WARPS * CHUNK_BYTES), vector)


def variants(dtype: str) -> list[GemvVariant]:
    """Return every compiled form that `choose_variant` can choose."""
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
    """Return the bytes of W that a CTA has in flight, for rows of k elements.

    None means long rows. Scalar loads give 0: they pass through registers, and the compiler decides how many at a time.
    """
    if not variant.vector:
        return 0
    ring = variant.ring_bytes(k)
    return ring if k is None else min(ring, variant.rows * k * ITEMSIZE[variant.dtype])


def compile_gemv(variant: GemvVariant, arch: str) -> CompiledKernel:
    """Compile a form for an architecture, without a GPU.

    Raises:
        UserError: as `kernels.cuda_gemv.compile_cuda` does.
    """
    return compile_cuda(SOURCE_PATH, variant.macros, arch, variant.shared_bytes())


def missing() -> str | None:
    """Return one line where CuPy cannot be imported; None where it can."""
    try:
        import cupy  # noqa: F401 - whether it can be is the question
    except Exception as error:  # an installation that does not fit raises more than ImportError
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        return f"cuda_gemv needs CuPy: pip install -c constraints.txt .[cu13] ({reason})"
    return None


@cache
def _load_kernel(variant: GemvVariant, device: int) -> Any:
    """Return the compiled kernel on a device.

    First calls compile and load it, so that later calls can be captured.
    """
    import cupy

    options = (CPP_STANDARD, *(f"-D{name}={value}" for name, value in variant.macros.items()))
    with cupy.cuda.Device(device):
        kernel = cupy.RawModule(code=SOURCE_PATH.read_text("utf-8"), options=options).get_function("gemv")
        if variant.shared_bytes() > 48 * 1024:  # more than a launch gets without asking
            kernel.max_dynamic_shared_size_bytes = variant.shared_bytes()
    return kernel


@cache
def _cupy_stream(handle: int, device: int) -> Any:
    """Return CuPy's object for torch's stream."""
    import cupy

    return cupy.cuda.ExternalStream(handle, device)  # cached, since CuPy 14 warns at each new object


def run(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """Read W once for all tokens, on torch's current stream.

    Raises:
        UserError: more than 4 tokens, a dtype without a form, operands that are strided or of mismatched shapes, or
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
    """Return the form for aligned rows of a shape, for the record.

    Rows begin at multiples of 16 bytes.
    """
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
