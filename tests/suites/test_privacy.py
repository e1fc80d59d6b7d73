"""No file that a run leaves names its user, its host or a folder that only they have."""

import json

import pytest

from reports.importers.result_file import recover
from specs import privacy
from suites.workers.worker import error_line
from tests.suites.conftest import GOOD

FOLDER = "/nfs/people/alice"
PLANTED = ("alice", "gpu017", "people", "carol")

FAULTY = """
def boom():
    raise OSError("/nfs/people/alice/.triton/cache is full, says alice@gpu017.cluster.example (10.1.2.3:29500)")

def bench_faulty(measure):
    measure(planted(boom), "decode", COLD, **SHAPE)

def absent():
    return "needs /home/carol/libnccl.so on gpu017"

def told(**shape):
    return "from /nfs/people/alice/tuned.json"

def bench_absent(measure):
    measure(replace(TORCH_LINEAR, missing=absent), "decode", COLD, **SHAPE)

def bench_telling(measure):
    measure(replace(TORCH_LINEAR, configuration=told), "decode", COLD, **SHAPE)
"""


@pytest.fixture
def alices(bench, monkeypatch):
    """A run by alice on gpu017, with her folders in variables, reasons, options and the branch."""
    monkeypatch.setenv("HOME", FOLDER)
    monkeypatch.setenv("USER", "alice")
    monkeypatch.setenv("TRITON_HOME", f"{FOLDER}/.triton")
    monkeypatch.setenv("NCCL_DEBUG_FILE", "/scratch/alice/nccl.log")
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "tcp://gpu017.cluster.example:3333")
    monkeypatch.setattr(privacy.platform, "node", lambda: "gpu017.cluster.example")
    commit = {"id": "a" * 40, "branch": "alice/faster", "project": "alice-shardbench", "dirty": False}
    monkeypatch.setattr("pytest_benchmark.plugin.get_commit_info", lambda *_: dict(commit))
    bench.write(FAULTY, GOOD)
    bench.run("--passes", "1", "--rootdir", str(bench.pytester.path), f"--basetemp={bench.pytester.path}/alice")
    return bench


def test_neither_the_json_nor_the_journal_nor_what_is_recovered_from_it(alices):
    recovered = alices.pytester.path / "recovered.json"
    recover(alices.journal, recovered)
    for path in (alices.json, alices.journal, recovered):
        text = path.read_text()
        assert not [name for name in PLANTED if name in text], path.name
        assert str(alices.pytester.path) not in text


def test_what_the_names_stood_in_is_kept(alices):
    result = alices.result()
    assert result["machine_info"]["variables"]["TRITON_HOME"] == "~/.triton"
    assert result["machine_info"]["variables"]["NCCL_DEBUG_FILE"] == "/scratch/<user>/nccl.log"
    assert result["machine_info"]["variables"]["OMPI_MCA_orte_hnp_uri"] == "tcp://<host>:3333"
    assert result["commit_info"]["branch"] == "<user>/faster"
    assert result["commit_info"]["id"] == "a" * 40
    (failed,) = result["shardbench"]["failed"]
    assert "~/.triton/cache is full, says <user>@<host> (<address>:29500)" in failed["reason"]
    (not_run,) = result["shardbench"]["not_run"]
    assert not_run["reason"].endswith("needs /home/<user>/libnccl.so on <host>")
    assert alices.cases()["bench_telling"]["extra_info"]["configuration"] == "from ~/tuned.json"


def test_a_journal_of_before_names_were_left_out_is_recovered_without_them(alices):
    """Lines as they would have been written."""
    lines = [json.loads(line) for line in alices.journal.read_text().splitlines()]
    lines[0]["run"]["machine_info"] |= {"node": "gpu017", "variables": {"TRITON_HOME": f"{FOLDER}/.triton"}}
    alices.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recovered = alices.pytester.path / "recovered.json"
    recover(alices.journal, recovered)
    assert not [name for name in PLANTED if name in recovered.read_text()]


def test_a_run_is_resumed_whose_variables_hold_the_home_folder(alices):
    alices.run("--resume", "--passes", "2").stdout.fnmatch_lines(["resumed: 3 cases have samples in *"])


def test_a_rank_does_not_name_its_host_to_the_one_that_writes(monkeypatch):
    monkeypatch.setattr(privacy.platform, "node", lambda: "gpu018")
    assert error_line(OSError("gpu018: no route to 10.1.2.3:29500")) == "OSError: <host>: no route to <address>:29500"
