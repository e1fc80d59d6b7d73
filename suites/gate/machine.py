"""What there is to run the gate with: the GPU, packages of the chosen interpreter, NVIDIA's tools."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from suites.gate.step import Step

_ASK = """
import importlib.util, json, sys
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
found = {"packages": {name: there(name) for name in sys.argv[1:]}, "gpu": None, "no_gpu": "torch is not installed"}
if there("torch"):
    try:
        import torch
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name(0)
        else:
            found["no_gpu"] = f"torch {torch.__version__} sees no CUDA GPU"
    except Exception as error:
        found["no_gpu"] = f"torch cannot be imported: {str(error).splitlines()[0]}"
print(json.dumps(found))
"""
"""Run in a process of its own: the gate holds no CUDA context while others measure."""

PROBE_SECONDS = 60


@dataclass(frozen=True)
class Machine:
    """What was found.

    Attributes:
        gpu: the GPU's name; None without one.
        no_gpu: why there is none.
        packages: those that were asked for, and whether they can be found.
    """

    gpu: str | None
    no_gpu: str
    packages: dict[str, bool]

    def why_not(self, step: Step) -> str | None:
        """All that `step` lacks here, in one line; None when it can run."""
        lacks = [] if self.gpu else [self.no_gpu]
        if absent := self.absent(step.packages):
            lacks.append(f"not installed: {', '.join(absent)}")
        if absent := [name for name in step.tools if find_tool(name) is None]:
            lacks.append(f"not on the PATH nor below CUDA_HOME: {', '.join(absent)}")
        return "; ".join(lacks) or None

    def absent(self, packages: Iterable[str]) -> list[str]:
        """Those of `packages` that are not installed; of torch, the reason for having no GPU speaks already."""
        told = () if self.gpu else ("torch",)
        return [name for name in packages if name not in told and not self.packages.get(name, False)]


def look_around(python: str, packages: Iterable[str]) -> Machine:
    """Ask the interpreter that the steps will use."""
    try:
        command = [python, "-c", _ASK, *sorted(set(packages))]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS)  # noqa: S603 - the interpreter that was asked for
        found = json.loads(asked.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError) as error:
        return Machine(None, f"{python} does not answer ({type(error).__name__})", {})
    return Machine(found["gpu"], found["no_gpu"], found["packages"])


def find_tool(name: str) -> str | None:
    """Where a program of the CUDA toolkit is: on the PATH, or where toolkits are installed."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    return shutil.which(name) or shutil.which(name, path=str(Path(home, "bin")))
