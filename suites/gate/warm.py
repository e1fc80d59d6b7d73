"""Compile what the steps behind this one launch, in as many processes as there are cores, into Triton's cache.

Nothing is launched, and no process but this one looks at the GPU. What is missing in the record compiles where it is
first launched, as it would without this step.
"""

import json
import os
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from suites.gate.step import Step, Verdict, leave, options

# Launches of Triton kernels, written down so that they can be compiled before anything runs, and without a GPU.
#
# A record says what a launch is specialised on, in words that no version of Triton owns: of a pointer the type of its
# elements and whether it begins at 16 bytes; of an integer whether it is one, whether it is a multiple of 16, and how
# many bits it takes; of a constant its value. The same record gives the same key of Triton's cache as the launch
# itself.

FOLDER = Path(__file__).parent / "launches"
ELEMENTS = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "i1": torch.bool,
}
SHORT = {dtype: name for name, dtype in ELEMENTS.items()}
ALIGNED_BYTES = 16
NOT_OPTIONS = ("grid", "warmup", "debug", "instrumentation_mode")
"""Keywords of a launch that are neither arguments nor options of the compiler that a caller chose."""
WIDE = 2**32
"""The smallest multiple of 16 that takes 64 bits."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Pointed:
    """Stands for a tensor where one is compiled for: what its elements are and where it begins."""

    dtype: torch.dtype
    aligned: bool = True

    def data_ptr(self) -> int:
        """An address."""
        return ALIGNED_BYTES * 64 + (0 if self.aligned else self.dtype.itemsize)

    def element_size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize


def describe(fn: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Record:
    """The record of a launch.

    Args:
        fn: the `@triton.jit` function.
        args: positional arguments, as `JITFunction.run` gets them.
        kwargs: keyword arguments; options of the compiler may be among them.

    Raises:
        TypeError: an argument of a kind that no kernel here takes.
    """
    parameters = {one.name: one for one in fn.params}
    bound = fn.signature.bind(*args, **{name: value for name, value in kwargs.items() if name in parameters})
    bound.apply_defaults()
    arguments = {name: _argument(parameters[name], value) for name, value in bound.arguments.items()}
    options = {
        name: value for name, value in sorted(kwargs.items()) if name not in parameters and name not in NOT_OPTIONS
    }
    return {"kernel": f"{_module(fn)}:{fn.fn.__qualname__}", "arguments": arguments, "options": options}


def _module(fn: Any) -> str:
    """The module that a kernel can be imported from, also where it is the program that runs."""
    name = str(fn.fn.__module__)
    own = getattr(sys.modules["__main__"], "__spec__", None)
    return own.name if name == "__main__" and own else name


def _argument(parameter: Any, value: Any) -> dict[str, Any]:
    if parameter.is_constexpr or value is None or isinstance(value, bool):
        return {"value": value}
    if isinstance(value, int):
        bits = 32 if -(2**31) <= value < 2**31 else 64
        if parameter.do_not_specialize:
            return {"integer": {"bits": bits}}
        return {"integer": {"one": value == 1, "divisible": value % ALIGNED_BYTES == 0, "bits": bits}}
    if isinstance(value, float):
        return {"float": True}
    if isinstance(value, TensorDescriptor):
        return {"descriptor": {"dtype": SHORT[value.base.dtype], "block": list(value.block_shape)}}
    if hasattr(value, "data_ptr"):
        return {"pointer": SHORT[value.dtype], "aligned": value.data_ptr() % ALIGNED_BYTES == 0}
    raise TypeError(f"{parameter.name}: a {type(value).__name__} is not written down yet")


def compile_launch(record: Record) -> Any:
    """Compile what a record describes, into Triton's cache; returns what Triton made.

    The target is that of Triton's active driver.

    Raises:
        Exception: whatever the compiler raises.
    """
    fn = kernel_of(record)
    arguments = {name: stand_in(told) for name, told in record["arguments"].items()}
    return fn.warmup(grid=(1,), **arguments, **record["options"])


def kernel_of(record: Record) -> Any:
    """The `@triton.jit` function of a record."""
    module, name = record["kernel"].split(":")
    return getattr(import_module(module), name)


def stand_in(told: Mapping[str, Any]) -> Any:
    """An argument on which Triton specialises as on the one that was written down."""
    if "value" in told:
        return told["value"]
    if "integer" in told:
        return _integer(**told["integer"])
    if "float" in told:
        return 0.5
    if "pointer" in told:
        return Pointed(ELEMENTS[told["pointer"]], told["aligned"])
    block = told["descriptor"]["block"]
    strides = [ALIGNED_BYTES * 64] * (len(block) - 1) + [1]
    return TensorDescriptor(Pointed(ELEMENTS[told["descriptor"]["dtype"]]), list(block), strides, list(block))


def _integer(bits: int, *, one: bool = False, divisible: bool = True) -> int:
    if one:
        return 1
    return (WIDE if bits == 64 else ALIGNED_BYTES) + (0 if divisible else 3)


def recorded(arch: str, folder: Path = FOLDER) -> list[Record]:
    """Records of an architecture; empty where there are none."""
    path = folder / f"{arch}.json"
    if not path.exists():
        return []
    records: list[Record] = json.loads(path.read_text())["launches"]
    return records


def write(arch: str, records: Iterable[Record], folder: Path = FOLDER) -> Path:
    """Write the distinct ones of `records`, one a line, in an order that does not change."""
    lines = sorted({json.dumps(one, sort_keys=True) for one in records})
    folder.mkdir(exist_ok=True)
    path = folder / f"{arch}.json"
    path.write_text('{"arch": "%s", "launches": [\n%s\n]}\n' % (arch, ",\n".join(lines)))  # noqa: UP031 - braces
    return path


"""As `suites.gate.warm`, which needs torch and Triton, writes it down."""
MARGIN_SECONDS = 3.0
"""Of the step's time: for ending the processes and leaving a verdict."""
SHOWN = 3
"""Failures whose reason stands in the verdict; all of them are in the log."""


class Absent:
    """Stands for Triton's driver in a process that compiles: it names the GPU and touches none."""

    def __init__(self, arch: str) -> None:
        self._arch = arch

    def get_current_target(self) -> Any:
        """What is compiled for."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", int(self._arch.removeprefix("sm_")), 32)

    def get_current_device(self) -> int:
        """A number that Triton files kernels under."""
        return 0

    def get_current_stream(self, _device: int) -> int:
        """No stream."""
        return 0


def compile_turn(arch: str, tasks: Connection) -> None:
    """Compile the records that come through `tasks` one after another, and send back why one could not be."""
    from triton.runtime.driver import driver

    driver.set_active(Absent(arch))
    with suppress(EOFError):
        while True:
            record: Record = tasks.recv()
            try:
                _build_launcher(compile_launch(record))
                tasks.send(None)
            except Exception as error:  # whatever a compiler raises is that record's
                tasks.send(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:300])


def _build_launcher(made: Any) -> None:
    """Triton below 3.7 compiles C for each kind of launch too; where that cannot be done beforehand it is done then."""
    from triton.backends.nvidia import driver as nvidia

    if hasattr(nvidia, "make_launcher"):
        with suppress(Exception):
            nvidia.CudaLauncher(made.src, made.metadata)


class Compilers:
    """Processes that compile, each at one record at a time; one that dies costs its record, and another takes over.

    Args:
        count: how many; they are forked at once, so that it has to be before the GPU is looked at.
        arch: what for.
    """

    def __init__(self, count: int, arch: str) -> None:
        self._context, self._arch = get_context("fork"), arch
        self._compilers = [self._start() for _ in range(count)]

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=compile_turn, args=(self._arch, theirs), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def compile(self, records: Sequence[Record], seconds: float) -> Iterator[tuple[Record, str | None]]:
        """(record, why it could not be compiled or None), in the order in which they are done; ends after `seconds`."""
        deadline, left = time.monotonic() + seconds, deque(records)
        processes, at = {pipe: process for process, pipe in self._compilers}, dict[Connection, Record]()
        for pipe in processes:
            _give(pipe, left, at)
        while at and (spare := deadline - time.monotonic()) > 0:
            for ready in cast("list[Connection]", wait(list(at), timeout=spare)):
                record = at.pop(ready)
                try:
                    reason = ready.recv()
                except (EOFError, OSError):
                    processes[ready].join()
                    reason = f"the compiler's process ended with status {processes[ready].exitcode}"
                    self._compilers.append(self._start())
                    process, free = self._compilers[-1]
                    processes[free] = process
                else:
                    free = ready
                yield record, reason
                _give(free, left, at)

    def close(self) -> None:
        """End them."""
        for process, _ in self._compilers:
            process.kill()
        for process, _ in self._compilers:
            process.join()


def _give(pipe: Connection, left: deque[Record], at: dict[Connection, Record]) -> None:
    if left:
        at[pipe] = left.popleft()
        pipe.send(at[pipe])


def judge(records: int, done: int, failed: Sequence[str], seconds: float, arch: str) -> Verdict:
    """Unfinished where time ran out; a record that does not compile is listed, and judged where it is launched."""
    figures = {"arch": arch, "launches": records, "compiled": done - len(failed), "failed": list(failed)}
    if not records:
        return Verdict("not_run", f"no launches are recorded for {arch}: kernels compile where they are launched")
    told = f"{done - len(failed)} of {records} launches for {arch} compiled in {seconds:.0f} s"
    told += f"; {len(failed)} could not be: {'; '.join(failed[:SHOWN])}" if failed else ""
    if len(failed) == done > 0:
        return Verdict("failed", told, figures)
    if done < records:
        return Verdict("unfinished", f"{told}; the rest compile where they are launched", figures)
    return Verdict("passed", told, figures)


def main(argv: Sequence[str] | None = None) -> int:
    """Compile all that is recorded for this GPU, or for `--arch`."""
    began, asked = time.monotonic(), _asked(argv)
    arch = asked.arch or _arch_here()

    records, failed, done = recorded(arch), list[str](), 0
    if records:
        compilers = Compilers(min(len(records), asked.processes), arch)
        try:
            left = asked.seconds - MARGIN_SECONDS - (time.monotonic() - began)
            for record, reason in compilers.compile(records, left):
                done += 1
                if reason:
                    failed.append(f"{record['kernel']}: {reason}")
                    print(f"{failed[-1]}: {record}", flush=True)  # noqa: T201 - a program's output
        finally:
            compilers.close()
    return leave(judge(len(records), done, failed, time.monotonic() - began, arch), asked.verdict)


def _arch_here() -> str:
    """Asked in a process of its own: those that compile are forked, and CUDA does not survive a fork."""
    import subprocess

    program = "from kernels.timing.device import current_device; print(current_device().arch)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)  # noqa: S603
    return done.stdout.strip() or "an unknown GPU"


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} is not a number of processes: at least 1")
    return int(text)


def _asked(argv: Sequence[str] | None) -> Namespace:
    from argparse import ArgumentParser

    extra = ArgumentParser(add_help=False)
    extra.add_argument("--arch", help="sm_90, …; without it that of the GPU at hand")
    cores = len(os.sched_getaffinity(0))
    extra.add_argument("--processes", type=_at_least_one, default=cores, help="how many compile at once")
    own, rest = extra.parse_known_args(argv)
    return Namespace(**vars(options(__doc__, rest, seconds=True)), **vars(own))


STEP = Step(
    name="warm",
    purpose="compile the recorded launches of every kernel, a process for each core",
    seconds=25,
    least_seconds=8,
    most_seconds=60,
    command=lambda place, seconds: place.module("warm", "--seconds", f"{seconds:.0f}"),
    environment={"OPENBLAS_NUM_THREADS": "1"},  # NumPy's library starts threads at import, which a fork may deadlock
    memory_gib=1.0,
)


if __name__ == "__main__":
    sys.exit(main())
