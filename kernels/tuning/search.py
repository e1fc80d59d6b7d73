"""The search on silicon: try what the model ranks first, then what lies next to the best, until time is up."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from math import inf, nan
from pathlib import Path
from statistics import fmean
from typing import IO, Any, NamedTuple

import torch

from kernels.configs.config import LinearConfig
from kernels.configs.dispatch import MEASURED_BASIS, ConfigTable, format_table
from kernels.configs.space import neighbours
from kernels.kernel import Inputs
from kernels.operands import Workspace
from kernels.timing.cuda import CudaTimer
from kernels.timing.device import Device
from kernels.timing.pool import TensorPool
from kernels.triton_utils import CompilationError, OutOfResources
from kernels.tuning.shapes import TunedShape
from specs.errors import UserError

SEED_CONFIGS = 4
"""Leaders of the ranking, before neighbours of the best have their turn."""


@dataclass
class SearchJob:
    """The search for one shape class.

    Attributes:
        shape: what stands for the class.
        ranked: every candidate, the one with the fastest prediction first; one already in use may lead.
        seconds: cold mean of what was tried, by configuration; inf for what was wrong or would not run.
    """

    shape: TunedShape
    ranked: Sequence[Any]
    seconds: dict[Any, float] = field(default_factory=dict)

    @property
    def best(self) -> Any:
        """The fastest of what was tried and right; None where nothing was."""
        right = {config: seconds for config, seconds in self.seconds.items() if seconds < inf}
        return min(right, key=lambda config: right[config]) if right else None

    def next_config(self) -> Any:
        """What to try now: the first few of the ranking, then neighbours of the best, then the rest; at last None."""
        fresh = [config for config in self.ranked if config not in self.seconds]
        seeds = [config for config in self.ranked[:SEED_CONFIGS] if config not in self.seconds]
        near = neighbours(self.best, fresh) if self.best else []
        return next(iter([*seeds, *near, *fresh]), None)


TrialFunction = Callable[[SearchJob, Any], float]


def leaders_first(ranked: Sequence[LinearConfig]) -> list[LinearConfig]:
    """The best of each way to multiply and to fetch leads: no step along one field goes from one way to another."""
    ways = {(config.matrix, config.tma): config for config in reversed(ranked)}
    leaders = [config for config in ranked if ways[config.matrix, config.tma] == config]
    return list(dict.fromkeys([*leaders, *ranked]))


def search_rounds(jobs: Sequence[SearchJob], trial: TrialFunction, time_left: Callable[[], bool]) -> Iterator[int]:
    """Give each hunt one try after another, so that no shape waits for the others; yields rounds from 1.

    Args:
        jobs: what to search for.
        trial: cold mean of a configuration in seconds; inf where it is wrong or does not run.
        time_left: asked before each try.
    """
    number = 0
    while time_left():
        open_hunts = [(hunt, config) for hunt in jobs if (config := hunt.next_config()) is not None]
        if not open_hunts:
            return
        for hunt, config in open_hunts:
            if not time_left():
                return
            hunt.seconds[config] = trial(hunt, config)
        number += 1
        yield number


# What a search has tried, a line a try, so that the next one goes on from there.


class Trial(NamedTuple):
    """One try.

    Attributes:
        made: the GPU, the versions and the kernel that it was made with.
        shape: for which.
        config: what was tried.
        seconds: cold mean of a call; inf where it was wrong or did not run.
        problem: why, then.
    """

    made: dict[str, str]
    shape: Any
    config: Any
    seconds: float
    problem: str = ""


def append_trial(path: Path, trial: Trial) -> None:
    """Append a line. inf is no JSON: it becomes null.

    Raises:
        UserError: the file cannot be written.
    """
    seconds = None if trial.seconds == inf else trial.seconds
    told = {"config": trial.config._asdict(), "seconds": seconds, "problem": trial.problem}
    line = json.dumps({"made": trial.made} | trial.shape._asdict() | told).encode()
    try:
        with path.open("a+b") as file:
            if file.tell() and not _ends_with_newline(file):  # the line before was cut short
                line = b"\n" + line
            file.write(line + b"\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; choose a folder that can be written with --into") from error


def _ends_with_newline(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def read_trials(
    path: Path, made: dict[str, str], shape: Callable[..., Any], config: Callable[..., Any]
) -> Iterator[Trial]:
    """Tries made with the same GPU and versions; a last line that was cut short, and foreign ones, are passed over.

    Args:
        path: the journal.
        made: with what.
        shape: makes one of its fields.
        config: likewise.

    Raises:
        UserError: the file is there and cannot be read.
    """
    if not path.exists():
        return
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; move it away") from error
    for text in lines:
        try:
            line: dict[str, Any] = json.loads(text)
            seconds, problem = line.pop("seconds"), line.pop("problem")
            tried_with, tried = line.pop("made"), config(**line.pop("config"))
            trial = Trial(tried_with, shape(**line), tried, inf if seconds is None else float(seconds), problem)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if trial.made == made and trial.seconds > 0:  # NaN is not
            yield trial


# One table that a search fills, on the disk: its hunts, the journal of their tries, and the rows found.


@dataclass
class TuningTable:
    """A table, and what is being searched for it.

    Attributes:
        path: of the table; the journal lies beside it.
        table: as found, then as filled.
        made: the GPU, the versions and the kernel of this search.
        row: makes one of a shape's fields, a configuration, seconds and a basis.
        jobs: one a shape.
    """

    path: Path
    table: ConfigTable[Any]
    made: dict[str, str]
    row: Callable[..., Any]
    jobs: Sequence[SearchJob] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        """Where tries are written, a line each."""
        return self.path.with_suffix(".trials.jsonl")

    def load_trials(self) -> int:
        """Give the hunts what was tried before; how many tries that were."""
        by_shape, known = {hunt.shape: hunt for hunt in self.jobs}, 0
        if not self.jobs:
            return 0
        shape, config = type(self.jobs[0].shape), type(self.jobs[0].ranked[0])
        for trial in read_trials(self.journal, self.made, shape, config):
            if hunt := by_shape.get(trial.shape):
                hunt.seconds[trial.config], known = trial.seconds, known + 1
        return known

    def record_trial(self, job: SearchJob, config: Any, seconds: float, problem: str) -> None:
        """Keep a try for the searches that follow."""
        append_trial(self.journal, Trial(self.made, job.shape, config, seconds, problem))

    def write_best(self) -> Path:
        """Write the table with the best of each hunt; one that has hardly begun has found nothing yet."""
        basis = MEASURED_BASIS + self.made["gpu"]
        for hunt in self.jobs:
            if (best := hunt.best) is not None and len(hunt.seconds) >= min(SEED_CONFIGS, len(hunt.ranked)):
                made = self.made | {"date": datetime.now(UTC).date().isoformat()}
                self.table = with_provenance(self.table, basis, made)
                sizes = hunt.shape._asdict()
                self.table = self.table.with_row(
                    self.row(**sizes, config=best, seconds=hunt.seconds[best], basis=basis)
                )
        return write_table(self.path, self.table)


def with_provenance(table: ConfigTable[Any], basis: str, made: dict[str, str]) -> ConfigTable[Any]:
    """The table with what rows of a basis were made with."""
    return ConfigTable(table.arch, table.made | {basis: made}, table.rows)


def ensure_folder(into: Path) -> Path:
    """The folder of the tables, made where it is missing.

    Raises:
        UserError: it cannot be.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--into {into}: {error.strerror}; choose a folder that can be written") from error
    return into


def write_table(path: Path, table: ConfigTable[Any]) -> Path:
    """Whole or not at all: a reader never meets half a table.

    Raises:
        UserError: it cannot be written.
    """
    half = ensure_folder(path.parent) / f"{path.stem}.half"
    try:
        half.write_text(format_table(table))
        half.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; choose a folder that can be written with --into") from error
    return path


# One try of a configuration on the GPU at hand: correct first, then the cold mean of a call in a graph.

PERMANENT_ERRORS = (CompilationError, OutOfResources, UserError)
"""What would be raised the next time too."""


class DeviceLostError(Exception):
    """A configuration took the GPU down: this process can use it no more."""


class TrialRunner:
    """Tries configurations for one shape after another.

    Args:
        device: the GPU.
        dtype: of the operands.
        largest_bytes: of the most that a call will stream.

    Attributes:
        problem: why the last try gave no time; empty where it gave one.
        is_permanent: whether it would give none the next time too: memory that is short, or a clock that is disturbed,
            passes.
    """

    def __init__(self, device: Device, dtype: str, largest_bytes: int) -> None:
        self._device = device
        self._pool = TensorPool(device, {dtype: largest_bytes})
        self.problem, self.is_permanent = "", True

    def seconds(self, shape: TunedShape, config: Any) -> float:
        """Cold mean of a call; inf where the configuration is wrong or does not run, with `problem` saying why.

        Raises:
            LostError: the GPU is lost to this process.
        """
        self.problem, self.is_permanent = "", True
        try:
            with torch.inference_mode():
                return self._measure(shape, config)
        except Exception as error:  # whatever a compiler or a launch raises is that configuration's
            said = str(error).strip().splitlines() or ["no message"]
            self.problem, self.is_permanent = f"{type(error).__name__}: {said[0]}", isinstance(error, PERMANENT_ERRORS)
        if lost := self._device.lost():
            self.problem, self.is_permanent = f"{lost} after {config}", True
            raise DeviceLostError(self.problem)
        return inf

    def _inputs(self, shape: TunedShape) -> list[Inputs]:
        self._pool.reset()
        return [shape.inputs(self._pool) for _ in range(self._device.cold_copies(shape.streamed_bytes))]

    def _measure(self, shape: TunedShape, config: Any) -> float:
        if refused := shape.rejection(config, self._device.arch):
            self.problem = refused
            return inf
        inputs = self._inputs(shape)
        first, kernel = inputs[0], shape.kernel
        scratch = Workspace(first["out"].device)  # its own: what a faulty configuration leaves there ends with it
        scratch.next_buffers(*shape.workspace_sizes(config))
        scratch.partials.fill_(nan)
        shape.launch(config, scratch, **first)
        error = kernel.relative_error(first)
        if not error <= kernel.rtol[shape.dtype]:
            self.problem = f"wrong result: relative error {error:.3g}"
            return inf
        timer = CudaTimer(self._device, "graph")
        timer.warm_up([partial(shape.launch, config, scratch, **one) for one in inputs], None)
        return fmean(timer.sample(1.0).seconds)
