"""NVTX ranges as a tool sees them: a library that NVTX loads records what the suites push and pop."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from tests.reports.importers.profiler.planted_trace import Trace
from tests.reports.run_reports import run_reports
from tests.suites.conftest import GOOD, KERNELS, ROOT
from tests.suites.workers.runs import SPARED_PLUGINS

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


@pytest.fixture(scope="module")
def run(recorder, tmp_path_factory):
    """The folder of a run of two cases in two passes, with its file and what was recorded."""
    tmp_path = tmp_path_factory.mktemp("run")
    (tmp_path / "bench_it.py").write_text(KERNELS + GOOD)
    record = tmp_path / "record.tsv"
    environment = os.environ | {
        "NVTX_INJECTION64_PATH": str(recorder),
        "NVTX_RECORD": str(record),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "pytest", "-p", "suites.plugin", "--rootdir", ".", "bench_it.py", "--passes", "2"]
    options = [*SPARED_PLUGINS, "--benchmark-json=out.json", "-o", "python_functions=bench_*"]
    done = subprocess.run([*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path


@pytest.fixture
def events(run):
    """(kind, fields …) of every event of that run."""
    return [line.split("\t") for line in (run / "record.tsv").read_text().splitlines()]


def test_a_timeline_shows_each_visit_by_case_with_warm_up_and_timed_part(events):
    stack, seen = [], []
    for kind, *fields in (event for event in events if event[0] != "mark"):
        if kind == "push":
            domain, _, payload, form, message = fields
            assert (domain, form) == ("shardbench", "registered")
            stack.append(message)
            seen.append((int(payload), tuple(stack)))
        elif kind == "pop":
            stack.pop()
    assert not stack
    good, also = "bench_it.py::bench_good", "bench_it.py::bench_also_good"
    expected = []
    for visit in range(2):
        for number, case in ((0, good), (1, also)):
            expected += [(number, (case,)), (number, (case, "warm-up"))]
            expected += [(number, (case, "warm-up", "call"))] if visit == 0 else []  # checked once
            expected += [(number, (case, "timed"))]
    assert seen == expected


def test_behind_the_samples_marks_say_how_many_calls_were_made_and_what_our_own_clock_found(events, run):
    stack, told = [], {}
    for kind, *fields in events:
        if kind == "push":
            stack.append(fields[-1])
        elif kind == "pop":
            stack.pop()
        elif kind == "mark":
            domain, _, payload, form, message = fields
            assert (domain, form, len(stack)) == ("shardbench", "registered", 1), "in a case's range, behind timed"
            told.setdefault((stack[0], message), []).append(float(payload))
    benchmarks = json.loads((run / "out.json").read_text())["benchmarks"]
    assert len(told) == 2 * len(benchmarks)
    for one in benchmarks:
        info, data = one["extra_info"], one["stats"]["data"]
        first, second = info["pass_rounds"]
        medians = [median(data[:first]), median(data[first:])]
        assert told[one["fullname"], "seconds a call"] == pytest.approx(medians, rel=1e-12)
        calls = told[one["fullname"], "calls"]
        assert calls[1] == second * info["calls"]
        assert calls[0] % first == 0


def test_an_import_of_a_trace_with_these_ranges_finds_every_visit_and_holds_it_against_our_clock(
    events, run, tmp_path, capsys
):
    """The events lie 100 us apart; in every `call` and `timed` a kernel of 7 us is launched."""
    trace, opened = Trace(), []
    for number, (kind, *fields) in enumerate(events):
        at = 100 * number
        if kind == "push":
            opened.append((fields[-1], at))
            if fields[-1] in ("call", "timed"):
                trace.eager(at + 1, at + 2, at + 9)
        elif kind == "pop":
            name, since = opened.pop()
            trace.range(name, since, at)
        elif kind == "mark" and fields[-1] == "calls":
            trace.tell(at, calls=int(fields[2]))
        elif kind == "mark":
            trace.tell(at, seconds=float(fields[2]))
    source, to = trace.write(tmp_path / "trace.sqlite"), tmp_path / "profile.json"
    assert run_reports("import", "nsys", source, "-o", to, "--format", "json") == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    benchmarks = {one["fullname"]: one for one in json.loads((run / "out.json").read_text())["benchmarks"]}
    assert [one["case"] for one in cases] == list(benchmarks)
    for one in cases:
        told = benchmarks[one["case"]]
        data, (first, second) = told["stats"]["data"], told["extra_info"]["pass_rounds"]
        assert one["visits"] == 2
        assert one["calls"] >= first + second
        assert one["clock_seconds"] == pytest.approx(median([median(data[:first]), median(data[first:])]))


def test_categories_are_the_questions(events):
    names = {fields[1]: fields[2] for kind, *fields in events if kind == "category"}
    pushed = [names[fields[1]] for kind, *fields in events if kind == "push"]
    assert pushed == ["decode"] * 4 + ["prefill"] * 4 + ["decode"] * 3 + ["prefill"] * 3


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
        *SPARED_PLUGINS,
        "suites/bench_collectives.py",
        "-k",
        "broadcast",
    ]
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    pushed = [line.split("\t")[-1] for line in record.read_text().splitlines() if line.startswith("push")]
    case = "suites/bench_collectives.py::bench_collective[broadcast-2ranks-16KiB-bf16-eager-gloo]"
    assert set(pushed) == {case, "warm-up", "call", "timed", "between"}
    # checked once; two samples to learn its time, one in each of two passes: on both ranks
    assert pushed.count("warm-up") == 2
    assert pushed.count("call") == 2, "of the two calls that a rank checks the first alone"
    assert pushed.count(case) == pushed.count("warm-up") + pushed.count("timed") == 2 + 2 * 4
    marks = [line.split("\t")[-1] for line in record.read_text().splitlines() if line.startswith("mark")]
    assert marks.count("calls") == marks.count("seconds a call") == pushed.count("timed")
