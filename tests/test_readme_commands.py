"""The README's commands on comparing and on profiles, typed as they stand there.

nsys and ncu themselves need a GPU: what they would have written is planted.
"""

import re
import shlex
from pathlib import Path

import pytest

from tests.reports import planted
from tests.reports.importers.profiler.planted_trace import CASE
from tests.reports.importers.profiler.test_ncu import KERNELS, details
from tests.reports.importers.profiler.test_nsys import eager
from tests.reports.run_reports import run_reports

README = (Path(__file__).parent.parent / "README.md").read_text()
GPUS = {
    "a100": ("NVIDIA A100-SXM4-80GB", 80_000_000_000),
    "h100": ("NVIDIA H100 80GB HBM3", 80_000_000_000),
    "h200": ("NVIDIA H200", 141_000_000_000),
}


def commands(section):
    """What a section shows of `python -m reports`, without remarks."""
    text = re.search(rf"^## {section}\n(.*?)^## ", README, re.DOTALL | re.MULTILINE).group(1)
    lines = [line.strip().partition("  #")[0] for line in text.splitlines()]
    return [line for line in lines if line.startswith("python -m reports ")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Everything that the commands read, under the names that they give it."""
    monkeypatch.chdir(tmp_path)
    one = planted.measured(planted.case(CASE), 18.9e-6)
    for name, (gpu, memory) in GPUS.items():
        planted.write(Path(f"{name}.json"), [one], machine=planted.H200 | {"gpu": gpu, "gpu_memory_bytes": memory})
    for name in ("before.json", "after.json"):
        planted.write(Path(name), [one])
    planted.write(Path("out.json"), [one], machine=planted.H200 | {"gpu": "NVIDIA H100 80GB HBM3"})
    eager().write(Path("trace.sqlite"))
    Path("table.csv").write_text(details(KERNELS))
    return tmp_path


@pytest.mark.parametrize("section", ["Comparing", "Profiles"])
def test_every_command_runs_as_it_is_written(section, folder, capsys):
    found = commands(section)
    assert len(found) >= 3
    for command in found:
        assert run_reports(*shlex.split(command)[3:]) == 0, command
        assert capsys.readouterr().out, command


def test_the_gate_of_the_readme_closes_on_a_slower_file(folder):
    (command,) = [one for one in commands("Comparing") if "--gate" in one]
    slower = [tuple(1.3 * sample for sample in one) for one in ((18.9e-6,) * 4,) * 6]
    planted.write(Path("after.json"), [planted.measured(planted.case(CASE), slower)])
    assert run_reports(*shlex.split(command)[3:]) == 1
