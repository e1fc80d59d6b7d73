"""Ahead-of-time compilation of CUDA C++ for any GPU, with no GPU and no driver, by nvcc or by NVRTC."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kernels.compile import Compiled, Cubin, check_arch, read_cubins
from specs.errors import UserError

STANDARD = "-std=c++17"


def compile_cuda(source: Path, macros: Mapping[str, int], arch: str, shared_bytes: int) -> Compiled:
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
    cubin, ptx = by_nvcc(nvcc, source, macros, arch) if nvcc else (by_nvrtc(source, macros, arch), "")
    return read_cubins([Cubin(cubin, shared_bytes, ptx)], arch)[0]


def find_nvcc() -> str | None:
    """The toolkit's compiler, from the PATH or from CUDA_HOME."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc") or (shutil.which("nvcc", path=str(Path(home, "bin"))) if home else None)


def by_nvcc(nvcc: str, source: Path, macros: Mapping[str, int], arch: str) -> tuple[bytes, str]:
    """Machine code and PTX.

    Raises:
        UserError: nvcc failed; what it says is passed on, such as an architecture that is newer than it.
    """
    defined = [f"-D{name}={value}" for name, value in macros.items()]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.cubin")
        command = [nvcc, "-cubin", f"-arch={arch}", STANDARD, *defined, "--keep", "--keep-dir", folder]
        done = subprocess.run([*command, "-o", str(out), str(source)], check=False, capture_output=True, text=True)  # noqa: S603 - the toolkit's own compiler
        if done.returncode != 0:
            raise UserError(
                f"{nvcc} cannot compile {source.name} for {arch}: {_first_error(done.stderr + done.stdout)}"
            )
        return out.read_bytes(), Path(folder, source.stem).with_suffix(".ptx").read_text()


def by_nvrtc(source: Path, macros: Mapping[str, int], arch: str) -> bytes:
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
    options = ProgramOptions(arch=arch, std=STANDARD.removeprefix("-std="), define_macro=defined or None)
    try:
        return bytes(Program(source.read_text("utf-8"), "c++", options).compile("cubin").code)
    except Exception as error:  # cuda.core has no base class for what NVRTC says
        raise UserError(f"NVRTC cannot compile {source.name} for {arch}: {_first_error(str(error))}") from error


def _first_error(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return next((line for line in lines if ": error" in line), lines[0] if lines else "it gave no reason")
