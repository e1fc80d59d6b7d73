"""Compile the recorded launches of later steps into Triton's cache, on all cores.

Nothing is launched, and only this process looks at the GPU. Launches that are not recorded compile when they are first
launched, as without this step.
"""

import os
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from suites.gate.step import Step, Verdict, parse_options, timed_program, write_verdict

Record = dict[str, Any]
"""Record of a launch by `suites.gate.launches`, which needs torch and Triton."""
MARGIN_SECONDS = 3.0
"""Seconds of the step to end the processes and write a verdict."""
SHOWN_FAILURES = 3
"""Failures whose reason the verdict shows; the log has all of them."""


class StubDriver:
    """Stand-in for Triton's driver in a compiler process: names a GPU, touches none."""

    def __init__(self, arch: str) -> None:
        self._arch = arch

    def get_current_target(self) -> Any:
        """Target of the compilation."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", int(self._arch.removeprefix("sm_")), 32)

    def get_current_device(self) -> int:
        """Device number under which Triton keeps kernels."""
        return 0

    def get_current_stream(self, _device: int) -> int:
        """Stream number, a placeholder."""
        return 0


def compile_records(arch: str, tasks: Connection) -> None:
    """Compile records from `tasks` in turn; send back None or a failure's reason."""
    from triton.runtime.driver import driver

    from suites.gate.launches import compile_launch

    driver.set_active(StubDriver(arch))
    with suppress(EOFError):
        while True:
            record: Record = tasks.recv()
            try:
                _build_launcher(compile_launch(record))
                tasks.send(None)
            except Exception as error:  # any error of a compiler counts as the record's
                tasks.send(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:300])


def _build_launcher(made: Any) -> None:
    """Compile the C launcher that Triton below 3.7 needs for each kind of launch.

    Where this fails, Triton compiles it at the launch.
    """
    from triton.backends.nvidia import driver as nvidia

    if hasattr(nvidia, "make_launcher"):
        with suppress(Exception):
            nvidia.CudaLauncher(made.src, made.metadata)


class CompilerPool:
    """Processes that compile, each one record at a time.

    A process that dies costs its record, and another takes over.

    Args:
        count: number of processes. They are forked at once, so the pool has to exist before the GPU is looked at.
        arch: architecture to compile for.
    """

    def __init__(self, count: int, arch: str) -> None:
        self._context, self._arch = get_context("fork"), arch
        self._compilers = [self._start() for _ in range(count)]

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=compile_records, args=(self._arch, theirs), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def compile(self, records: Sequence[Record], seconds: float) -> Iterator[tuple[Record, str | None]]:
        """Yield (record, reason of a failure or None), in order of completion.

        The iteration ends after `seconds`.
        """
        deadline, left = time.monotonic() + seconds, deque(records)
        processes, at = {pipe: process for process, pipe in self._compilers}, dict[Connection, Record]()
        for pipe in processes:
            _dispatch(pipe, left, at)
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
                _dispatch(free, left, at)

    def close(self) -> None:
        """Kill all processes and wait for them."""
        for process, _ in self._compilers:
            process.kill()
        for process, _ in self._compilers:
            process.join()


def _dispatch(pipe: Connection, left: deque[Record], at: dict[Connection, Record]) -> None:
    if left:
        at[pipe] = left.popleft()
        pipe.send(at[pipe])


def judge_warm(records: int, done: int, failed: Sequence[str], seconds: float, arch: str) -> Verdict:
    """Verdict: unfinished where time ran out, failed where no record compiles.

    A record that does not compile is listed, and judged where it is launched.
    """
    figures = {"arch": arch, "launches": records, "compiled": done - len(failed), "failed": list(failed)}
    if not records:
        return Verdict("not_run", f"no launches are recorded for {arch}: kernels compile where they are launched")
    told = f"{done - len(failed)} of {records} launches for {arch} compiled in {seconds:.0f} s"
    told += f"; {len(failed)} could not be: {'; '.join(failed[:SHOWN_FAILURES])}" if failed else ""
    if len(failed) == done > 0:
        return Verdict("failed", told, figures)
    if done < records:
        return Verdict("unfinished", f"{told}; the rest compile where they are launched", figures)
    return Verdict("passed", told, figures)


def main(argv: Sequence[str] | None = None) -> int:
    """Compile all records for this GPU, or for `--arch`; return the exit status."""
    began, asked = time.monotonic(), _parse_arguments(argv)
    arch = asked.arch or _current_arch()
    from suites.gate.launches import read_records

    records, failed, done = read_records(arch), list[str](), 0
    if records:
        import kernels.registry  # noqa: F401 - once, before the processes are forked

        compilers = CompilerPool(min(len(records), asked.processes), arch)
        try:
            left = asked.seconds - MARGIN_SECONDS - (time.monotonic() - began)
            for record, reason in compilers.compile(records, left):
                done += 1
                if reason:
                    failed.append(f"{record['kernel']}: {reason}")
                    print(f"{failed[-1]}: {record}", flush=True)  # noqa: T201 - a program's output
        finally:
            compilers.close()
    return write_verdict(judge_warm(len(records), done, failed, time.monotonic() - began, arch), asked.verdict)


def _current_arch() -> str:
    """Architecture of the GPU, read in a process of its own.

    The compilers are forked, and CUDA does not survive a fork.
    """
    import subprocess

    program = "from kernels.timing.device import current_device; print(current_device().arch)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)  # noqa: S603
    return done.stdout.strip() or "an unknown GPU"


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} is not a number of processes: at least 1")
    return int(text)


def _parse_arguments(argv: Sequence[str] | None) -> Namespace:
    from argparse import ArgumentParser

    extra = ArgumentParser(add_help=False)
    extra.add_argument("--arch", help="sm_90, …; without it that of the GPU at hand")
    cores = len(os.sched_getaffinity(0))
    extra.add_argument("--processes", type=_at_least_one, default=cores, help="how many compile at once")
    own, rest = extra.parse_known_args(argv)
    return Namespace(**vars(parse_options(__doc__, rest, seconds=True)), **vars(own))


STEP = Step(
    name="warm",
    purpose="compile the recorded launches of every kernel, a process for each core",
    seconds=25,
    least_seconds=8,
    most_seconds=60,
    command=timed_program("warm"),
    environment={"OPENBLAS_NUM_THREADS": "1"},  # NumPy's library starts threads at import, which a fork may deadlock
    memory_gib=1.0,
)

if __name__ == "__main__":
    sys.exit(main())
