"""A whole model on two hosts, whose clocks are laid on one another: its ledgers close, hop and idle are told apart.

The hosts are network namespaces of this machine with a cable between them.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from specs import measurement
from tests.suites.workers.hosts import ADDRESSES, two_hosts
from tests.suites.workers.runs import SPARED_PLUGINS, launcher_variables

ROOT = Path(__file__).parent.parent.parent.parent
BENCH = ("-m", "pytest", "suites/bench_tp_vs_pp.py", "-p", "no:cacheprovider", *SPARED_PLUGINS)
SHAPE = ("--model=tiny", "--layers=4", "--batch=8", "--prompts=2x16", "--passes=1", "--tp=1,2", "--pp=1,2")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Cases by name, and what the file says of the machine."""
    path = tmp_path_factory.mktemp("hosts") / "out.json"
    with two_hosts() as hosts:
        ranks = [
            subprocess.Popen(
                [*hosts.python(rank), *BENCH, *SHAPE, *([f"--benchmark-json={path}"] if rank == 0 else [])],
                cwd=ROOT,
                env=os.environ | launcher_variables(rank, 2, 29_500, ADDRESSES[0], hosts=2),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in (0, 1)
        ]
        try:
            said = [rank.communicate(timeout=90)[0] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    result = json.loads(path.read_text())
    found = {one["name"].partition("[")[2].rstrip("]"): one["extra_info"] for one in result["benchmarks"]}
    return found, result


def test_every_deployment_of_the_two_runs(measured):
    found, result = measured
    assert (result["machine_info"]["hosts"], result["machine_info"]["ranks"]) == (2, 2)
    assert all(sum(f"-{one}-bf16" in name for name in found) == 2 for one in ("tp2", "pp2-sync", "pp2-async2"))
    assert all(info["transport"] == "network" for info in found.values())


def test_ledgers_close_and_no_share_is_negative(measured):
    for info in measured[0].values():
        for stages in info["ledgers"]:
            for shares in stages:
                assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
                assert min(shares.values()) >= 0


def test_neither_direction_takes_all_of_the_hops(measured):
    """A clock that is ahead would make the hops one way longer, and those of the other way nothing."""
    (ledgers,) = (info["ledgers"] for name, info in measured[0].items() if "ctx128-pp2-sync" in name)
    hops = [stage["hop"] for stage in measurement.ledger_by_stage(ledgers)]
    assert min(hops) > max(hops) / 50
