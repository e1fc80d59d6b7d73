"""Turns a process into one on the simulated device, as soon as torch is imported in it."""

import atexit
import importlib.machinery
import sys
from pathlib import Path
from typing import Any

from tests.simulated_gpu.imports import After, Lacking
from tests.simulated_gpu.planted_faults import PLANTED_FAULTS
from tests.simulated_gpu.process import Notes, make_gpu, settings, tell_slow_time, tell_virtual_time


class AfterTorch(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets the import of torch run, then installs everything else."""

    def __init__(self) -> None:
        self._own: Any = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Torch's spec with this loader; none for all other modules."""
        own = importlib.machinery.PathFinder.find_spec(name, path, target) if name == "torch" else None
        if own is None:
            return None
        self._own = own
        spec = importlib.machinery.ModuleSpec(name, self, origin=own.origin, is_package=True)
        spec.submodule_search_locations = own.submodule_search_locations
        return spec

    def create_module(self, _spec: Any) -> Any:
        """Torch's own way."""
        return self._own.loader.create_module(self._own)

    def exec_module(self, module: Any) -> None:
        """Import torch, then simulate."""
        module.__file__ = self._own.origin
        self._own.loader.exec_module(module)
        simulate()


def simulate() -> None:
    """Install the device, Triton's launches, the libraries, virtual time and the suites' hooks."""
    from tests.simulated_gpu import fake_cuda, fake_libraries, fake_suites, fake_triton

    told = settings()
    notes, gpu = Notes(Path(told.folder)), make_gpu(told)

    def fault(text: str) -> None:
        notes.add("fault", text=text)

    gpu.fault = fault
    fake_cuda.install(gpu)
    fake_libraries.install(gpu)
    launcher = fake_triton.Launcher(
        gpu,
        fake_suites.compiled(Path(told.folder)),
        first=lambda fn, args, options, code, warm: fake_suites.note_first(notes, fn, args, options, code, warm=warm),
        made=lambda code: notes.add("compiled", code=code),
    )
    fake_triton.install(launcher, gpu.spec.capability)
    tell_virtual_time(gpu)
    fake_suites.install(gpu, notes, told)
    atexit.register(lambda: notes.add("end", host=gpu.host, argv=sys.argv[:2]))


def prepare() -> None:
    """Wait for torch, refuse what the simulated machine lacks, and plant a fault."""
    told = settings()
    tell_slow_time(told.slowdown)
    planted = dict(PLANTED_FAULTS[told.plant].hooks) if told.plant else {}
    sys.meta_path[:0] = [Lacking(told.lacking), AfterTorch(), After(planted)]
