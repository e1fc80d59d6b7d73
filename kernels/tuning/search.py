"""The search for configurations on a GPU: order of trials, journal and tables.

It tries the configurations that the model ranks first, then neighbours of the best, until time is up.
"""

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
"""First configurations of the ranking, tried before neighbours of the best."""


@dataclass
class SearchJob:
    """The search for one shape class.

    Attributes:
        shape: shape that represents the class.
        ranked: every candidate, the fastest prediction first; a configuration already in use may lead.
        seconds: cold mean of each trial, by configuration; inf for a wrong result or a failed run.
    """

    shape: TunedShape
    ranked: Sequence[Any]
    seconds: dict[Any, float] = field(default_factory=dict)

    @property
    def best(self) -> Any:
        """Fastest correct configuration so far; None without any."""
        right = {config: seconds for config, seconds in self.seconds.items() if seconds < inf}
        return min(right, key=lambda config: right[config]) if right else None

    def next_config(self) -> Any:
        """Return the next configuration to try; None at the end.

        The order is the first of the ranking, then neighbours of the best, then the rest.
        """
        fresh = [config for config in self.ranked if config not in self.seconds]
        seeds = [config for config in self.ranked[:SEED_CONFIGS] if config not in self.seconds]
        near = neighbours(self.best, fresh) if self.best else []
        return next(iter([*seeds, *near, *fresh]), None)


TrialFunction = Callable[[SearchJob, Any], float]


def leaders_first(ranked: Sequence[LinearConfig]) -> list[LinearConfig]:
    """Return the ranking with the best of each way to multiply and to fetch first.

    No step along one field changes the way.
    """
    ways = {(config.matrix, config.tma): config for config in reversed(ranked)}
    leaders = [config for config in ranked if ways[config.matrix, config.tma] == config]
    return list(dict.fromkeys([*leaders, *ranked]))


def search_rounds(jobs: Sequence[SearchJob], trial: TrialFunction, time_left: Callable[[], bool]) -> Iterator[int]:
    """Give each job one trial per round, so that no shape waits; yield rounds from 1.

    Args:
        jobs: searches to run.
        trial: cold mean of a configuration in seconds; inf where it is wrong or does not run.
        time_left: asked before each trial.
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


# Journal of trials, one line each, from which the next search continues.


class Trial(NamedTuple):
    """One trial.

    Attributes:
        made: the GPU, the versions and the kernel digest of the trial.
        shape: the tuned shape.
        config: the tried configuration.
        seconds: cold mean of a call; inf where it was wrong or did not run.
        problem: reason for inf.
    """

    made: dict[str, str]
    shape: Any
    config: Any
    seconds: float
    problem: str = ""


def append_trial(path: Path, trial: Trial) -> None:
    """Append a line; inf, which JSON lacks, becomes null.

    Raises:
        UserError: the file cannot be written.
    """
    seconds = None if trial.seconds == inf else trial.seconds
    told = {"config": trial.config._asdict(), "seconds": seconds, "problem": trial.problem}
    line = json.dumps({"made": trial.made} | trial.shape._asdict() | told).encode()
    try:
        with path.open("a+b") as file:
            if file.tell() and not _ends_with_newline(file):  # the previous line was cut short
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
    """Yield trials with the same GPU and versions.

    A last line that was cut short, and foreign lines, are skipped.

    Args:
        path: the journal.
        made: GPU, versions and kernel digest to match.
        shape: makes a shape of its fields.
        config: makes a configuration of its fields.

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
        if trial.made == made and trial.seconds > 0:  # fails for NaN too
            yield trial


@dataclass
class TuningTable:
    """One table on the disk that a search fills, with its jobs and journal.

    Attributes:
        path: path of the table; the journal lies next to it.
        table: the table as found, then as filled.
        made: the GPU, the versions and the kernel digest of this search.
        row: makes a row of a shape's fields, a configuration, seconds and a basis.
        jobs: one search per shape.
    """

    path: Path
    table: ConfigTable[Any]
    made: dict[str, str]
    row: Callable[..., Any]
    jobs: Sequence[SearchJob] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        """Path of the journal of trials."""
        return self.path.with_suffix(".trials.jsonl")

    def load_trials(self) -> int:
        """Give the jobs their earlier trials; return the number of trials."""
        by_shape, known = {hunt.shape: hunt for hunt in self.jobs}, 0
        if not self.jobs:
            return 0
        shape, config = type(self.jobs[0].shape), type(self.jobs[0].ranked[0])
        for trial in read_trials(self.journal, self.made, shape, config):
            if hunt := by_shape.get(trial.shape):
                hunt.seconds[trial.config], known = trial.seconds, known + 1
        return known

    def record_trial(self, job: SearchJob, config: Any, seconds: float, problem: str) -> None:
        """Keep a trial for later searches."""
        append_trial(self.journal, Trial(self.made, job.shape, config, seconds, problem))

    def write_best(self) -> Path:
        """Write the table with the best configuration of each job.

        A job that has hardly begun does not count yet.
        """
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
    """Return the table with the provenance of a basis."""
    return ConfigTable(table.arch, table.made | {basis: made}, table.rows)


def ensure_folder(into: Path) -> Path:
    """Return the folder of the tables; create it where it is missing.

    Raises:
        UserError: it cannot be created.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--into {into}: {error.strerror}; choose a folder that can be written") from error
    return into


def write_table(path: Path, table: ConfigTable[Any]) -> Path:
    """Write a table in full or not at all: a reader never sees half a table.

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


# One trial of a configuration on this GPU: first the check, then the cold mean of a call in a graph.

PERMANENT_ERRORS = (CompilationError, OutOfResources, UserError)
"""Errors that would be raised the next time too."""


class DeviceLostError(Exception):
    """A configuration took the GPU down: this process can no longer use it."""


class TrialRunner:
    """Runner of trials for one shape after another.

    Args:
        device: the GPU.
        dtype: dtype of the operands.
        largest_bytes: most bytes that a call will stream.

    Attributes:
        problem: reason why the last trial gave no time; empty where it gave a time.
        is_permanent: True where it would give none the next time too; short memory and a disturbed clock pass.
    """

    def __init__(self, device: Device, dtype: str, largest_bytes: int) -> None:
        self._device = device
        self._pool = TensorPool(device, {dtype: largest_bytes})
        self.problem, self.is_permanent = "", True

    def seconds(self, shape: TunedShape, config: Any) -> float:
        """Return the cold mean of a call in seconds; inf on failure.

        A failure is a wrong result or no run; `problem` has the reason.

        Raises:
            DeviceLostError: the GPU is lost to this process.
        """
        self.problem, self.is_permanent = "", True
        try:
            with torch.inference_mode():
                return self._measure(shape, config)
        except Exception as error:  # any error of a compiler or a launch is that configuration's
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
        scratch = Workspace(first["out"].device)  # own workspace: a faulty configuration's leftovers end with it
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
