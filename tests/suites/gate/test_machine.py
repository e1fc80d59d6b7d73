"""Machines on which something is in the way: one line each, and what can run is run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.timing import nvidia_smi
from specs.errors import UserError
from suites.gate.command import main
from suites.gate.machine import Machine, inspect_machine
from suites.gate.runner import GateRun
from tests.suites.gate.fakes import place, step

ROOT = Path(__file__).parents[3]
H200 = {"gpu": "NVIDIA H200", "free_bytes": 139 * 2**30, "memory_bytes": 140 * 2**30}
SILENT = {
    "gpu": None,
    "no_gpu": "torch 2.11.0+cu130 sees no CUDA GPU",
    "torch": ["2.11.0+cu130", "13.0", None, "no CUDA-capable device is detected"],
}
LISTED = "nvidia-smi lists NVIDIA H200 with driver"
SMI = """#!/bin/sh
echo "$1" >> {asked}
{before}
case "$1" in
  --query-gpu=name,driver_version) printf '{driver}' ;;
  --query-compute-apps=pid) printf '{processes}' ;;
esac
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """What is found where the interpreter says `found`, and nvidia-smi the rest."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def ask(found, driver="NVIDIA H200, 580.95.05\\n", processes="", before=""):
        text = json.dumps({"packages": {"torch": True}, "no_gpu": "", **found})
        smi = SMI.format(asked=tmp_path / "asked", driver=driver, processes=processes, before=before)
        for name, script in {"python": f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n", "nvidia-smi": smi}.items():
            (tmp_path / name).write_text(script)
            (tmp_path / name).chmod(0o755)
        return inspect_machine(str(tmp_path / "python"), ["torch"])

    return ask


def built(version, cuda):
    return {**SILENT, "torch": [version, cuda, None, "no CUDA-capable device is detected"]}


def test_a_gpu_that_is_free_is_taken_without_a_word(machine):
    assert machine(H200) == Machine("NVIDIA H200", "", {"torch": True}, 139.0, ())


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("535.104.05", "driver 580 or newer: install PyTorch's cu126 build: make bench TORCH=cu126"),
        ("470.57.02", "driver 580 or newer: no build fits it: install driver 580 or newer"),
    ],
)
def test_a_driver_that_is_older_than_the_runtime_is_named_with_what_fits(machine, version, told):
    reason = machine(SILENT, driver=f"NVIDIA H200, {version}\\n").no_gpu
    assert reason == f"{LISTED} {version}; torch 2.11.0+cu130 needs CUDA 13.0, {told}"


def test_a_driver_that_torch_cannot_open_comes_with_the_reason_of_torch(machine):
    told = "torch 2.11.0+cu130 for CUDA 13.0 cannot open it: no CUDA-capable device is detected"
    assert machine(SILENT).no_gpu == f"{LISTED} 580.95.05; {told}"


@pytest.mark.parametrize(
    "driver",
    ["", "NVIDIA H200, [N/A]\\n", "[N/A], [N/A]\\n", "No devices were found\\n", "Unable to determine it: lost\\n"],
)
def test_a_driver_that_tells_no_version_is_none(machine, driver):
    assert machine(SILENT, driver=driver).no_gpu == SILENT["no_gpu"]


def test_a_torch_without_cuda_on_a_machine_with_a_gpu_is_named(machine):
    told = machine(built("2.13.0+cpu", None)).no_gpu
    assert told == (
        f"{LISTED} 580.95.05; torch 2.13.0+cpu is a build without CUDA: "
        "install the CUDA build: make clean, then make bench"
    )


def test_an_nvidia_smi_that_hangs_is_asked_once_and_said_to_hang(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(nvidia_smi, "TIMEOUT_SECONDS", 2.0)
    hanging = "nvidia-smi did not answer within 2 s"
    assert machine(SILENT, before="exec sleep 30").no_gpu == f"{SILENT['no_gpu']}, and {hanging}"
    assert len((tmp_path / "asked").read_text().splitlines()) == 1
    (note,) = machine(H200).notes
    assert note == f"{hanging}: whether other processes use the GPU is not known"
    assert len((tmp_path / "asked").read_text().splitlines()) == 1


def test_a_gpu_that_is_seen_and_cannot_be_used_is_none(tmp_path):
    """As where another process has it in exclusive mode: its name is told, its memory is not."""
    (tmp_path / "torch.py").write_text(
        """
import types
def refuse(_):
    raise RuntimeError("CUDA error: device is busy\\nmore")
version = types.SimpleNamespace(cuda="13.0", hip=None)
cuda = types.SimpleNamespace(is_available=lambda: True, get_device_name=lambda _: "NVIDIA H200", mem_get_info=refuse)
__version__ = "2.11.0"
"""
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = inspect_machine(str(python), ["torch"])
    assert found.gpu is None
    assert found.no_gpu == "torch cannot be imported or cannot use the GPU: CUDA error: device is busy"


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_a_gpu_that_is_hidden_is_said_to_be(machine, monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert machine(SILENT).no_gpu == "CUDA_VISIBLE_DEVICES hides every GPU: unset it, or set it to 0"


def test_a_number_that_names_no_gpu_is_told(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    told = machine(SILENT).no_gpu
    assert told == f"{LISTED} 580.95.05; CUDA_VISIBLE_DEVICES=3 names no GPU that is there: unset it"


def test_the_gate_itself_needs_no_torch():
    program = "import sys, suites.gate.command; print({'torch', 'triton', 'numpy', 'psutil'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "cannot be run (No such file or directory)"),
        ("echo '[1]'", "does not answer as Python does (exit status 0)"),
        ("echo '{}'", "does not answer as Python does (exit status 0)"),
        ("echo 'bad option -c' >&2; exit 2", "does not answer as Python does (exit status 2: bad option -c)"),
    ],
)
def test_an_interpreter_that_is_none_is_refused_in_a_line(tmp_path, capsys, script, reason):
    python = tmp_path / "python"
    if script:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    with pytest.raises(UserError):
        inspect_machine(str(python), ["torch"])
    with pytest.raises(SystemExit) as left:
        main(["--python", str(python), "--list"])
    assert left.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: --python {python}: {reason}")


def test_a_slice_others_and_their_memory_are_notes(machine):
    (note,) = machine({**H200, "gpu": "NVIDIA H200 MIG 1g.18gb"}).notes
    assert note.startswith("NVIDIA H200 MIG 1g.18gb is a MIG slice")
    (note,) = machine(H200, processes="4242\\n4343\\n").notes
    assert note == "2 other processes use the GPU (process 4242, 4343): times will be theirs too"
    (note,) = machine(H200, processes="[N/A]\\n4242\\n").notes
    assert note == "1 other processes use the GPU (process 4242): times will be theirs too"
    assert not machine(H200, processes="[N/A]\\n").notes
    (note,) = machine({**H200, "free_bytes": 100 * 2**30}).notes
    assert note == "40.0 of 140.0 GiB of GPU memory are in use by others"


def test_with_one_gib_free_what_fits_is_run_and_the_rest_says_what_it_needs(tmp_path):
    found = Machine("NVIDIA H200", "", {}, 1.0)
    steps = step("large", "print()"), step("small", "print('fine')", memory_gib=0.5)
    large, small = GateRun(steps, found, place(tmp_path), 60.0, lambda line: None).run()
    assert (large.outcome, large.detail) == ("not_run", "it needs 8 GiB of GPU memory, 1.0 are free")
    assert small.outcome == "passed"


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        (sys.executable, None),
        (None, "install gcc, or name one in CC"),
        ("/nowhere/gcc", "CC='/nowhere/gcc' is no program; name one without options, or unset CC"),
        ("gcc -O2", "CC='gcc -O2' is no program; name one without options, or unset CC"),
    ],
)
def test_without_a_c_compiler_what_launches_is_not_run_and_what_does_not_is(tmp_path, monkeypatch, variable, reason):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if variable:
        monkeypatch.setenv("CC", variable)
    machine = Machine("NVIDIA H200", "", {})
    told = reason and f"Triton needs a C compiler for its first launch: {reason}"
    assert machine.why_not(step("a", launches=True)) == told
    assert machine.why_not(step("b", launches=False)) is None
