"""A run of whole models by pytest, on ranks that answer as planted: options, result file, and what ends it."""

import pytest

from suites import session
from suites.workers.process import RankLostError
from tests.suites.conftest import Bench
from tests.suites.probes.test_model import FakeModelWorkers

SUITE = """
import pytest
from suites.probes.model import add_steps

def pytest_generate_tests(metafunc):
    if metafunc.function in (bench_decode_step, bench_prefill_step):
        add_steps(metafunc, decode=metafunc.function is bench_decode_step)

def bench_decode_step(measure, deployment, part, how):
    measure(deployment, "tp_vs_pp", how, part)

def bench_prefill_step(measure, deployment, part, how):
    measure(deployment, "tp_vs_pp", how, part)

def bench_kernel(measure):
    measure(TORCH_LINEAR, "decode", COLD, Shard("m", 2, 1, "qkv", 64, 32), **SHAPE)
"""


class Planted(FakeModelWorkers):
    """In place of the session's crew; ranks that are `lost` do not come."""

    lost = False

    def __init__(self, muster, kind, timeout):
        super().__init__(40e-3)

    def start(self):
        if self.lost:
            raise RankLostError("rank 1 did not start within 60 s")
        super().start()

    def close(self):
        pass


@pytest.fixture
def bench(pytester, monkeypatch):
    monkeypatch.setattr(session, "WorkerPool", Planted)
    made = Bench(pytester)
    made.write(SUITE)
    return made


ONE = ("--model=tiny", "--layers=2", "--context=32", "--batch=4", "--tp=2")


def test_a_run_writes_the_step_its_ledger_and_its_timeline_beside_kernels(bench):
    result = bench.run("--passes=2", *ONE, "-k", "kernel or decode_step")
    result.assert_outcomes(passed=2)
    (name,) = [name for name in bench.cases() if "decode_step" in name]
    assert name == "bench_decode_step[tiny-2layers-4tok-ctx32-tp2-bf16-torch]"
    info = bench.cases()[name]["extra_info"]
    assert (info["op"], info["question"], info["tp"], info["layers"], info["backend"]) == (
        "step",
        "tp_vs_pp",
        2,
        2,
        "gloo",
    )
    assert info["tokens_per_second"] == pytest.approx(4 / 40e-3)
    assert sum(info["ledger"].values()) == pytest.approx(1)
    assert len(info["ledgers"]) == info["passes"] == 2
    assert info["timeline"]["blocks"]


def test_a_run_that_goes_on_has_the_ledgers_of_both_halves(bench):
    bench.run("--passes=1", *ONE, "-k", "decode_step")
    bench.run("--passes=3", *ONE, "-k", "decode_step", "--resume").assert_outcomes(passed=1)
    (case,) = bench.cases().values()
    assert len(case["extra_info"]["ledgers"]) == case["extra_info"]["passes"] == 3


def test_a_budget_is_shared_in_the_usual_proportion(bench):
    # 20 s is the usual time for kernels here, 45 s for whole models: 6.5 s are a tenth of both
    result = bench.run("--passes=1", "--budget=6.5", *ONE, "-k", "kernel or decode_step")
    result.stdout.fnmatch_lines(["*2 of 2 cases can run here; budget 6 s"])


def test_ranks_that_do_not_come_fail_the_steps_and_no_kernel(bench, monkeypatch):
    monkeypatch.setattr(Planted, "lost", True)
    result = bench.run("--passes=1", *ONE, "-k", "kernel or decode_step")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*rank 1 did not start within 60 s*"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--tp=4", "tp 4 x pp 1 x replicas 1 is 4 ranks and this run has 2; choose factors of 2, or --ranks 4"),
        ("--pp=4 --ranks=4 --layers=2", "tiny cut down to 2 of its 8 layers has none for each of 4 stages; choose*"),
        ("--layers=9", "tiny: --layers 9 exceeds its 8 layers; choose 1 to 8"),
        ("--pp=2 --micro-batches=8 --schedule=async --batch=4", "8 micro-batches of 4 sequences a replica: at most*"),
    ],
)
def test_what_cannot_run_ends_with_its_line_where_nothing_is_left(bench, options, line):
    result = bench.run("--passes=1", "--model=tiny", *options.split(), "-k", "decode_step")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"not run here: * case*: {line}", "nothing was measured, so no JSON is written"])
    assert not bench.json.exists()


def test_the_list_says_what_a_step_is_and_why_it_cannot_run(bench):
    result = bench.run("--list", "--model=tiny", "--context=32", "--tp=2,4", "--batch=4", "-k", "decode_step")
    result.stdout.fnmatch_lines(
        [
            "*tiny-2layers-4tok-ctx32-tp2-bf16-torch]: 2 ranks, 2 layers, on the busiest * GFLOP, * MB",
            "*tiny-2layers-4tok-ctx32-tp4-bf16-torch]: *; not here: tp 4 x pp 1 x replicas 1 is 4 ranks and this run *",
        ]
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--batch=0", "*--batch: '0' is not a whole number of at least 1"),
        ("--layers=none", "*--layers: 'none' is not a whole number of at least 1"),
        ("--schedule=gpipe", "*--schedule: 'gpipe' is unknown; choose from tp, sync, async"),
        ("--partition=odd", "*--partition: 'odd' is unknown; choose from even, balanced"),
        ("--micro-batches=1,,2", "*--micro-batches: '1,,2' has an empty member*"),
        ("--replicas=-1", "*--replicas: '-1' is not a whole number of at least 1"),
        ("--model=tiny --tp=3", "*ERROR: tiny: tp=3 must divide 16 heads*"),
        ("--model=tiny --pp=9", "*ERROR: tiny: pp=9 exceeds its 8 layers*"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(bench, option, message):
    result = bench.run(*option.split())
    assert result.ret == 4
    result.stderr.fnmatch_lines([message])
