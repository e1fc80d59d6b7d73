"""NCCL's algorithms are asked for in ranks of their own, before anything is timed."""

from pathlib import Path

from comm.collectives import COLLECTIVES
from suites.case import CollectiveRunConfig
from suites.probes.collective import plan_collective_case, record_nccl_algorithms
from suites.workers.launcher import RankPlan
from suites.workers.process import RankLostError

LINES = {
    16384: "host:1:2 [0] NCCL INFO AllReduce: 16384 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..3}\n",
    2**20: "host:1:2 [0] NCCL INFO AllReduce: 1048576 Bytes -> Algo NVLS proto SIMPLE channel{Lo..Hi}={0..15}\n",
}


class FakeLoggingWorkers:
    """Ranks whose NCCL writes a line for each all-reduce into the file that it was given."""

    def __init__(self, dies=False):
        self.steps, self._log, self._dies = [], None, dies

    def start(self, first):
        self.steps.append("start")
        self._log = Path(first["NCCL_DEBUG_FILE"])
        assert first["NCCL_DEBUG"] == "INFO"

    def run_command(self, command, arguments, doing):
        self.steps.append(command)
        if self._dies:
            raise RankLostError("rank 1 was killed")
        if command == "draw":
            self._bytes = arguments["task"]["elements"] * 2
        else:
            with self._log.open("a") as log:
                log.write(LINES.get(self._bytes, ""))
        return [{}, {}]

    def end(self):
        self.steps.append("end")


def case(message, implementation="nccl", op="all_reduce", launch="graph"):
    entry = plan_collective_case(
        f"{op} {message} {launch}", RankPlan(2, "cuda"), COLLECTIVES[op], "communication",
        CollectiveRunConfig("bf16", launch, 0.0, implementation), None, message_bytes=message,
    )  # fmt: skip
    entry.not_run = None  # as where there are GPUs
    return entry


def test_what_nccl_told_stands_on_each_case_of_that_message():
    cases = [case(16384), case(16384, launch="eager"), case(2**20), case(4096)]
    crew = FakeLoggingWorkers()
    record_nccl_algorithms(crew, cases)
    assert [one.algorithm for one in cases] == ["ring LL", "ring LL", "nvls SIMPLE", None]
    # graph and eager are one question
    assert crew.steps == ["start", *["draw", "check"] * 3, "end"]


def test_the_all_reduce_before_a_norm_is_told_as_any_other():
    entry = case(16384)
    entry.case = entry.case.__class__(**{**vars(entry.case), "op": "all_reduce_rmsnorm"})
    record_nccl_algorithms(FakeLoggingWorkers(), [entry])
    assert entry.algorithm == "ring LL"


def test_other_libraries_start_no_ranks():
    crew = FakeLoggingWorkers()
    record_nccl_algorithms(crew, [case(16384, "triton-one-shot"), case(16384, "symm-two-shot")])
    assert crew.steps == []


def test_ranks_that_die_meanwhile_leave_it_unknown_and_the_run_goes_on():
    entry, crew = case(16384), FakeLoggingWorkers(dies=True)
    record_nccl_algorithms(crew, [entry])
    assert entry.algorithm is None
    assert entry.is_measurable
    assert crew.steps[-1] == "end"
