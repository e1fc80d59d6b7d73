"""Machines on which something is in the way: one line each, and what can run is run."""

import json
import sys

import pytest

from suites.gate.machine import Machine, look_around
from suites.gate.runner import Gate
from tests.suites.gate.fakes import place, step

H200 = {"gpu": "NVIDIA H200", "free_bytes": 139 * 2**30, "memory_bytes": 140 * 2**30}
SILENT = {"gpu": None, "no_gpu": "torch 2.11.0+cu130 sees no CUDA GPU"}
TORCH = {"torch": "2.11.0+cu130", "cuda": "13.0", "packages": {"torch": True}}
SMI = """#!/bin/sh
case "$1" in
  --query-gpu=driver_version) printf '{driver}' ;;
  --query-compute-apps=pid) printf '{processes}' ;;
esac
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """What is found where the interpreter says `found`, and nvidia-smi the rest."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def ask(found, driver="580.95.05\\n", processes=""):
        text = json.dumps({**TORCH, **found})
        scripts = {
            "python": f"#!/bin/sh\necho '{text}'\n",
            "nvidia-smi": SMI.format(driver=driver, processes=processes),
        }
        for name, script in scripts.items():
            (tmp_path / name).write_text(script)
            (tmp_path / name).chmod(0o755)
        return look_around(str(tmp_path / "python"), ["torch"])

    return ask


def test_a_gpu_that_is_free_is_taken_without_a_word(machine):
    assert machine(H200) == Machine("NVIDIA H200", "", {"torch": True}, 139.0, ())


def test_a_driver_that_is_older_than_the_runtime_is_named_with_what_fits(machine):
    told = machine(SILENT, driver="550.54.15\\n").no_gpu
    assert told == (
        "driver 550.54.15 is older than CUDA 13.0 of torch 2.11.0+cu130 needs: "
        "update it to 580.65 or newer, or install a torch for an older CUDA"
    )
    assert machine(SILENT).no_gpu == "torch 2.11.0+cu130 sees no CUDA GPU, but nvidia-smi does, with driver 580.95.05"
    assert machine(SILENT, driver="").no_gpu == "torch 2.11.0+cu130 sees no CUDA GPU"


def test_a_torch_without_cuda_on_a_machine_with_a_gpu_is_named(machine):
    told = machine({**SILENT, "torch": "2.13.0+cpu", "cuda": None}).no_gpu
    assert told == "torch 2.13.0+cpu is built without CUDA, and there is a GPU with driver 580.95.05"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_is_hidden_is_said_to_be(machine, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert machine(SILENT).no_gpu == "CUDA_VISIBLE_DEVICES hides every GPU: unset it, or set it to 0"


def test_a_slice_others_and_their_memory_are_notes(machine):
    (note,) = machine({**H200, "gpu": "NVIDIA H200 MIG 1g.18gb"}).notes
    assert note.startswith("NVIDIA H200 MIG 1g.18gb is a MIG slice")
    (note,) = machine(H200, processes="4242\\n4343\\n").notes
    assert note == "2 other processes use the GPU (process 4242, 4343): times will be theirs too"
    (note,) = machine({**H200, "free_bytes": 100 * 2**30}).notes
    assert note == "40.0 of 140.0 GiB of GPU memory are in use by others"


def test_with_one_gib_free_what_fits_is_run_and_the_rest_says_what_it_needs(tmp_path):
    found = Machine("NVIDIA H200", "", {}, 1.0)
    steps = step("large", "print()"), step("small", "print('fine')", memory_gib=0.5)
    large, small = Gate(steps, found, place(tmp_path), 60.0, lambda line: None).run()
    assert (large.outcome, large.detail) == ("not_run", "it needs 8 GiB of GPU memory, 1.0 are free")
    assert small.outcome == "passed"


@pytest.mark.parametrize(("variable", "found"), [("/nowhere/gcc", False), (sys.executable, True), (None, False)])
def test_without_a_c_compiler_what_launches_is_not_run_and_what_does_not_is(tmp_path, monkeypatch, variable, found):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if variable:
        monkeypatch.setenv("CC", variable)
    machine = Machine("NVIDIA H200", "", {})
    reason = "Triton needs a C compiler for its first launch: install gcc, or name one in CC"
    assert machine.why_not(step("a", launches=True)) == (None if found else reason)
    assert machine.why_not(step("b", launches=False)) is None
