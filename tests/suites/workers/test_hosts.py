"""Two hosts: network namespaces of this machine with a cable between them."""

import pytest

from tests.suites.workers.hosts import ADDRESSES, two_hosts
from tests.suites.workers.runs import AFTER, BEFORE, MARGIN, STRUCK, TIMEOUT, fault, launcher_variables

PORT = 29_500


@pytest.fixture(scope="module")
def hosts():
    with two_hosts() as both:
        yield both


def assert_measured_over_the_cable(runs):
    """Rank 0's process measured everything; the other said nothing of its own."""
    first, second = (run.wait() for run in runs)
    assert (first.status, second.status) == (0, 0), first.output + second.output
    assert set(first.written) == {BEFORE, STRUCK, AFTER}
    machine = first.result["machine_info"]
    assert (machine["hosts"], machine["ranks"], machine["transport"]) == (2, 2, "network")
    assert "passed" not in second.output
    assert len(first.ranks()) == 2
    assert first.leaves_nothing()


def test_ranks_on_two_hosts_measure(start, hosts):
    runs = [
        start(environment=launcher_variables(rank, 2, PORT, ADDRESSES[0], hosts=2), before=hosts.python(rank))
        for rank in (0, 1)
    ]
    assert_measured_over_the_cable(runs)


def test_torchrun_on_two_hosts_measures(start, hosts):
    torchrun = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--master-addr={ADDRESSES[0]}")
    runs = [
        start(before=(*hosts.python(node), *torchrun, f"--master-port={PORT}", f"--node-rank={node}"))
        for node in (0, 1)
    ]
    assert_measured_over_the_cable(runs)
    assert runs[0].result["machine_info"]["launcher"] == "torchrun"


def test_when_the_cable_is_cut_both_hosts_end_with_a_line(start, hosts):
    first, second = (
        start(
            environment=launcher_variables(rank, 2, PORT, ADDRESSES[0], hosts=2),
            before=hosts.python(rank),
            planted=[fault(1, "pause", "sample")],
        )
        for rank in (0, 1)
    )
    first.until_struck()
    hosts.cut()
    second.wait(TIMEOUT + MARGIN)
    first.wait(TIMEOUT + MARGIN)
    silent = f"rank 1 stopped answering while timing all_reduce gloo 4 KiB; given up after {TIMEOUT} s"
    assert first.failed == {STRUCK: silent, AFTER: "rank 1's host does not answer any more"}
    assert silent in first.output.splitlines()
    assert set(first.measured) == {BEFORE} == set(first.written)
    assert second.errors() == [
        f"ERROR: rank 1 of 2: rank 0 has been silent for {TIMEOUT} s; its host or the network is gone"
    ]
    assert (first.status, second.status) == (1, 4)
    assert len(first.ranks()) == 2
    assert first.leaves_nothing()
