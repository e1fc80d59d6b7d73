"""One process on the simulated device: what it is told, what it notes for the dry run, and how time passes in it."""

import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.simulated_gpu.hardware import Gpu, Spec, Weather

VARIABLE = "SHARDBENCH_SIMULATED_GPU"
"""Settings as JSON: the variable that makes a process simulate."""
LACKING = ("nvtx", "altair", "vl_convert", "cuda.bench", "flash_attn", "flash_attn_interface", "flashinfer")
"""Packages that the first machine does not have; the last three are nowhere in the project's requirements."""


@dataclass(frozen=True)
class Settings:
    """What a simulated process is told.

    Attributes:
        folder: where it leaves its notes.
        weather: what disturbs the run.
        plant: name of the planted fault; empty for none.
        share: of the cases, the part that is measured through; the others are planned, bound and keyed.
        passes: over the cases that are measured.
        lacking: packages that cannot be imported.
        free_bytes: memory that is free; None for all.
        fault_in: part of the name of a case in which the GPU is lost.
        cool_seconds: idle time after which the SM clock is down again.
        slowdown: real seconds of a limit's second, in processes that only start and watch others.
    """

    folder: str
    weather: Weather = field(default_factory=Weather)
    plant: str = ""
    share: float = 0.1
    passes: int = 3
    lacking: tuple[str, ...] = LACKING
    free_bytes: int | None = None
    fault_in: str = ""
    cool_seconds: float = 0.5
    slowdown: float = 1.0

    def environment(self) -> dict[str, str]:
        """Variables of a process that shall simulate."""
        here = Path(__file__).parent
        paths = [str(here / "site"), str(here.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            VARIABLE: json.dumps(asdict(self)),
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTEST_ADDOPTS": "-p tests.simulated_gpu.collection",
        }


def settings() -> Settings:
    """Those of this process."""
    told = json.loads(os.environ[VARIABLE])
    weather = told.pop("weather")
    weather["throttled"] = tuple(map(tuple, weather["throttled"]))
    told["lacking"] = tuple(told["lacking"])
    return Settings(weather=Weather(**weather), **told)


class Notes:
    """Lines of JSON that every process of a dry run appends to one file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notes.jsonl"
        self._step = os.environ.get("SHARDBENCH_STEP", "")

    def add(self, kind: str, **facts: Any) -> None:
        """Append a line in one write, as several processes do at once."""
        line = json.dumps({"kind": kind, "step": self._step, "process": os.getpid(), **facts})
        with self._path.open("ab", buffering=0) as file:
            file.write(line.encode() + b"\n")


def read_notes(folder: Path) -> list[dict[str, Any]]:
    """All lines so far."""
    path = folder / "notes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def make_gpu(told: Settings) -> Gpu:
    """The device that a process sees."""
    spec = Spec(cool_seconds=told.cool_seconds)
    if told.free_bytes is not None:
        spec = replace(spec, free_bytes=told.free_bytes)
    return Gpu(spec, told.weather)


GLANCE_SECONDS = 2e-7
"""Host time of a look at the clock: a loop that only waits comes to its end."""


def tell_slow_time(slowdown: float) -> None:
    """Make `time` tell one second in `slowdown`: limits of processes that only start and watch others are wider."""
    real = time.monotonic
    time.monotonic = lambda: real() / slowdown


def tell_virtual_time(gpu: Gpu) -> None:
    """Make `time` tell the device's virtual seconds, in which budgets and waits then pass."""
    began = time.monotonic()

    def now() -> float:
        gpu.host += GLANCE_SECONDS
        return began + gpu.host

    def sleep(seconds: float) -> None:
        gpu.host += max(0.0, seconds)

    time.monotonic = time.perf_counter = now  # type: ignore[assignment]
    time.sleep = sleep
