"""A run of shares by pytest, on ranks that answer as planted: options, result file, going on, and steps beside them."""

from types import SimpleNamespace

import pytest

from specs.measurement import CASE_FIELDS, Case, Measurement
from suites import session
from tests.suites.conftest import Bench
from tests.suites.probes.share_workers import FakeShareWorkers

SUITE = """
from suites.probes.share import add_shares
from suites.probes.model import add_steps

def pytest_generate_tests(metafunc):
    if metafunc.function is bench_share:
        add_shares(metafunc)
    elif metafunc.function is bench_decode_step:
        add_steps(metafunc, decode=True)

def bench_share(measure, share, how):
    measure(share, "shares", how)

def bench_decode_step(measure, deployment, part, how):
    measure(deployment, "tp_vs_pp", how, part)

def bench_kernel(measure):
    measure(TORCH_LINEAR, "decode", COLD, Shard("m", 2, 1, "qkv", 64, 32), **SHAPE)
"""
ONE = ("--model=tiny", "--layers=2", "--context=32", "--batch=4", "--tp=2")


class Planted(FakeShareWorkers):
    """In place of the session's crew."""

    def close(self):
        pass


@pytest.fixture
def crews(monkeypatch):
    """Those that a run has made; what `wrong` says of theirs is planted."""
    made = SimpleNamespace(all=[], wrong={})

    def make(muster, kind, timeout):
        made.all.append(Planted(40e-3, wrong=made.wrong))
        return made.all[-1]

    monkeypatch.setattr(session, "WorkerPool", make)
    return made


@pytest.fixture
def bench(pytester, crews):
    made = Bench(pytester)
    made.write(SUITE)
    return made


def test_a_run_writes_what_the_planner_reads(bench):
    bench.run("--passes=2", *ONE, "-k", "share").assert_outcomes(passed=2)
    assert list(bench.cases()) == [
        f"bench_share[tiny-2layers-4tok-ctx32-tp2-2atonce-{part}-bf16-torch]" for part in ("layer", "lm_head")
    ]
    infos = [one["extra_info"] for one in bench.cases().values()]
    layer, head = (Case(**{name: one[name] for name in CASE_FIELDS if name in one}) for one in infos)
    for case in (layer, head):
        assert (case.question, case.model, case.tp, case.pp, case.ranks) == ("shares", "tiny", 2, 1, 2)
        assert (case.tokens, case.implementation, case.launch, case.backend) == (4, "torch", "eager", None)
        assert case.flops > 0
        assert case.hbm_bytes > 0
    assert (layer.op, layer.layer, layer.batch, layer.context) == ("layer", "layer", 4, 32)
    # the vocabulary of tiny is 4096 with 8 layers, 1024 with two, half of it on a rank
    assert (head.op, head.layer, head.n, head.k, head.batch) == ("linear", "lm_head", 512, 256, None)
    (data,) = {tuple(one["stats"]["data"]) for one in bench.cases().values() if "-layer-" in one["name"]}
    assert set(data) == {4e-3}
    assert next(iter(bench.cases().values()))["extra_info"]["skew_seconds"] > 0


def test_a_wrong_layer_leaves_no_number(bench, crews):
    crews.wrong["layer"] = 0.5
    bench.run("--passes=2", *ONE, "-k", "share").assert_outcomes(passed=1, failed=1)
    (left,) = bench.cases()
    assert "-lm_head-" in left
    (failed,) = bench.result()["shardbench"]["failed"]
    assert failed["reason"] == "wrong result: relative error 0.5 is over 0.04; not timed"


def test_a_run_that_goes_on_has_the_passes_of_both_halves(bench):
    bench.run("--passes=1", *ONE, "-k", "share")
    bench.run("--passes=3", *ONE, "-k", "share", "--resume").assert_outcomes(passed=2)
    for one in bench.cases().values():
        found = Measurement.from_benchmark(one)
        assert len(found.seconds) == 3
        assert found.relative_error == 1e-3


def test_a_step_and_its_shares_are_visited_pass_by_pass(bench, crews):
    bench.run("--passes=2", *ONE, "-k", "share or decode_step").assert_outcomes(passed=3)
    (crew,) = crews.all
    asked = [command for command, _ in crew.commands if command in ("build", "share")]
    assert asked == ["build", "share"] * 2


def test_what_a_step_is_made_of_is_visited_beside_it(bench, crews):
    options = ("--model=tiny", "--layers=2", "--context=32", "--batch=64,4", "--tp=2")
    bench.run("--passes=1", *options, "-k", "share or decode_step").assert_outcomes(passed=6)
    (crew,) = crews.all
    asked = [(command, told["tokens"]) for command, told in crew.commands if command in ("build", "share")]
    assert asked == [("build", 4), ("share", 4), ("build", 64), ("share", 64)]


def test_shares_have_a_budget_of_their_own_beside_the_steps(bench):
    # usually 20 s for kernels here, 50 for steps, 30 for shares
    for chosen, tenth in (("share", 3), ("share or decode_step", 8), ("share or decode_step or kernel", 10)):
        result = bench.run("--passes=1", f"--budget={tenth}", *ONE, "-k", chosen)
        result.stdout.fnmatch_lines([f"*budget {tenth} s"])


def test_the_list_says_what_a_share_is_and_why_it_cannot_run(bench):
    result = bench.run("--list", *ONE, "--impl=torch,triton", "-k", "share")
    result.stdout.fnmatch_lines(
        [
            "*tiny-2layers-4tok-ctx32-tp2-2atonce-layer-bf16-torch]: * GFLOP, * MB",
            "*tiny-2layers-4tok-ctx32-tp2-2atonce-layer-bf16-triton]: *; not here: *this is cpu",
        ]
    )
