import json
import shlex

import pytest

from reports.importers.result_file import recover
from suites.session import command_line
from suites.workers.launcher import LaunchedRank
from tests.suites.conftest import GOOD


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return tmp_path


def test_is_what_one_would_type(root):
    given = ("suites/", "--tokens", "1,125", "-k", "a and not b", "--benchmark-json=build/out.json")
    assert command_line(given, root, None) == (
        "pytest suites/ --tokens 1,125 -k 'a and not b' --benchmark-json=build/out.json"
    )
    assert shlex.split(command_line(given, root, None))[1:] == list(given)


def test_paths_are_told_from_the_root_and_others_by_their_last_part(root):
    given = (root / "suites", f"{root}/suites/bench_a.py::bench[x]", "--benchmark-json=/mnt/disk/out.json", "/srv/b.py")
    assert command_line(given, root, None) == (
        "pytest suites 'suites/bench_a.py::bench[x]' --benchmark-json=out.json b.py"
    )


def test_options_of_the_environment_were_given_too(root):
    environment = {"PYTEST_ADDOPTS": "--passes 3"}
    assert command_line(["suites/"], root, None, environment) == "pytest --passes 3 suites/"


@pytest.mark.parametrize(
    ("launcher", "ranks", "local_ranks", "program"),
    [
        ("torchrun", 8, 8, "torchrun --nproc-per-node 8 -m pytest"),
        ("torchrun", 16, 8, "torchrun --nnodes 2 --nproc-per-node 8 -m pytest"),
        ("srun", 16, 8, "srun -n 16 python -m pytest"),
        ("mpirun", 2, 2, "mpirun -n 2 python -m pytest"),
    ],
)
def test_begins_with_the_launcher(root, launcher, ranks, local_ranks, program):
    place = LaunchedRank(0, ranks, 0, local_ranks, launcher, "10.0.0.1", 29500)
    assert command_line(["suites/", "--impl", "nccl"], root, place) == f"{program} suites/ --impl nccl"


def test_stands_in_the_result_file_and_in_the_journal(bench):
    bench.write(GOOD)
    bench.run("--passes", "1")
    command = bench.result()["shardbench"]["command"]
    assert command.startswith("pytest -p suites.plugin -p no:cacheprovider --benchmark-json=out.json bench_it.py")
    assert command.endswith("--passes 1")
    run = json.loads(bench.journal.read_text().splitlines()[0])["run"]
    assert run["command"] == command
    recover(bench.journal, bench.pytester.path / "again.json")
    assert json.loads((bench.pytester.path / "again.json").read_text())["shardbench"]["command"] == command
