import pytest

from reports.machine import run_command
from reports.results import parse
from tests.reports import planted


def file(tmp_path, cases=("suites/bench_linears.py::b[1]",), **block):
    content = planted.content([planted.measured(planted.case(name), 1.0) for name in cases])
    content["shardbench"] |= block
    return parse(tmp_path / "x.json", content)


def test_is_what_the_file_says(tmp_path):
    command = "torchrun --nproc-per-node 8 -m pytest suites/ --impl nccl"
    assert run_command(file(tmp_path, command=command)) == command


@pytest.mark.parametrize(
    ("options", "typed"),
    [
        ({}, ""),
        ({"rank_timeout": 60.0}, ""),
        ({"rank_timeout": 5.0, "budget": 420.0, "passes": 3}, " --rank-timeout 5 --budget 420 --passes 3"),
        ({"tokens": [1, 125], "micro_batches": [2, 4]}, " --tokens 1,125 --micro-batches 2,4"),
        ({"message": [16384, 1048576, 1500], "gap": [0.001, 0.0]}, " --message 16KiB,1MiB,1500 --gap 1,0"),
        ({"late": [0.0, 0.004]}, " --late 0,4"),
        ({"prompts": [[4, 512]], "resume": True}, " --prompts 4x512 --resume"),
    ],
)  # fmt: skip
def test_is_put_together_from_the_options_where_the_file_does_not(tmp_path, options, typed):
    assert run_command(file(tmp_path, options=options)) == f"pytest suites/bench_linears.py{typed} (by its options)"


def test_names_the_suites_where_they_are_few(tmp_path):
    cases = [f"suites/bench_{name}.py::b[1]" for name in "abcd"]
    assert (
        run_command(file(tmp_path, cases[:2], options={}))
        == "pytest suites/bench_a.py suites/bench_b.py (by its options)"
    )
    assert run_command(file(tmp_path, cases, options={})) == "pytest suites/ (by its options)"


def test_an_imported_file_was_not_run(tmp_path):
    content = planted.content([planted.measured(planted.case(), 1.0)], machine=planted.H200 | {"source": "tables"})
    assert run_command(parse(tmp_path / "x.json", content)) == ""


def test_nor_was_a_profile(tmp_path):
    machine = planted.H200 | {"profiler": "NVIDIA Nsight Systems 2026.1"}
    content = planted.content([planted.measured(planted.case(), 1.0)], machine=machine)
    content["shardbench"]["options"] = {"profiler": "nsys", "run": True}
    assert run_command(parse(tmp_path / "x.json", content)) == ""
