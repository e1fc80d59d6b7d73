"""NVTX ranges as a tool sees them: a library that NVTX loads records what the suites push and pop."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.suites.conftest import GOOD, KERNELS, ROOT

SOURCE = Path(__file__).with_name("nvtx_recorder.c")


@pytest.fixture(scope="module")
def recorder(tmp_path_factory):
    """The injection library, built from the headers of the nvidia-nvtx wheel."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler (cc) on the PATH to build the NVTX injection library with")
    packages = importlib.util.find_spec("nvidia").submodule_search_locations
    headers = next((path.parents[1] for root in packages for path in Path(root).rglob("nvtx3/nvToolsExt.h")), None)
    if headers is None:
        pytest.skip("the nvidia-nvtx package, whose headers describe the injection interface, is not installed")
    library = tmp_path_factory.mktemp("nvtx") / "recorder.so"
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", f"-I{headers}", "-o", library, SOURCE]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def events(recorder, tmp_path):
    """(kind, fields …) of every event of a run of two cases in two passes."""
    (tmp_path / "bench_it.py").write_text(KERNELS + GOOD)
    record = tmp_path / "record.tsv"
    environment = os.environ | {
        "NVTX_INJECTION64_PATH": str(recorder),
        "NVTX_RECORD": str(record),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "pytest", "-p", "suites.plugin", "--rootdir", ".", "bench_it.py", "--passes", "2"]
    done = subprocess.run(
        [*command, "-o", "python_functions=bench_*"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split("\t") for line in record.read_text().splitlines()]


def test_a_timeline_shows_each_visit_by_case_with_warm_up_and_timed_part(events):
    stack, seen = [], []
    for kind, *fields in events:
        if kind == "push":
            domain, _, payload, form, message = fields
            assert (domain, form) == ("shardbench", "registered")
            stack.append(message)
            seen.append((int(payload), tuple(stack)))
        elif kind == "pop":
            stack.pop()
    assert not stack
    good, also = "bench_it.py::bench_good", "bench_it.py::bench_also_good"
    visits = [
        [(number, (case,)), (number, (case, "warm-up")), (number, (case, "timed"))]
        for number, case in ((0, good), (1, also))
    ]
    assert seen == [event for _ in range(2) for visit in visits for event in visit]


def test_categories_are_the_questions(events):
    names = {fields[1]: fields[2] for kind, *fields in events if kind == "category"}
    pushed = [names[fields[1]] for kind, *fields in events if kind == "push"]
    assert pushed == (["decode"] * 3 + ["prefill"] * 3) * 2


def test_every_rank_marks_its_visits_to_a_case(recorder, tmp_path):
    record = tmp_path / "record.tsv"
    environment = os.environ | {"NVTX_INJECTION64_PATH": str(recorder), "NVTX_RECORD": str(record)}
    options = ["--impl=gloo", "--message=16KiB", "--gap=0", "--passes=2", f"--benchmark-json={tmp_path / 'out.json'}"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "suites/bench_collectives.py",
        "-k",
        "broadcast",
    ]
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    pushed = [line.split("\t")[-1] for line in record.read_text().splitlines() if line.startswith("push")]
    case = "suites/bench_collectives.py::bench_collective[broadcast-2ranks-16KiB-bf16-eager-gloo]"
    assert set(pushed) == {case, "warm-up", "timed"}
    # checked once; two samples to learn its time, one in each of two passes: on both ranks
    assert pushed.count("warm-up") == 2
    assert pushed.count(case) == pushed.count("warm-up") + pushed.count("timed") == 2 + 2 * 4
