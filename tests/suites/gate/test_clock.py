"""Clocks beside each other: NVBench's file, the limits, and what is said when a part is missing."""

import json

import pytest

from suites.gate import clock
from suites.gate.clock import compare_clocks, judge_clocks, read_nvbench
from suites.gate.dram import benchmark_name
from tests.suites.gate.test_dram import MARKED
from tests.suites.gate.test_runner import gone


def summary(tag, value):
    return {
        "tag": tag,
        "name": "x",
        "hint": "duration",
        "data": [{"name": "value", "type": "float64", "value": repr(value)}],
    }


def benchmark(name, *summaries, skipped=None):
    state = {"name": "Device=0", "device": 0, "type_config_index": 0, "axis_values": None, "is_skipped": bool(skipped)}
    state |= {"skip_reason": skipped} if skipped else {"summaries": list(summaries)}
    return {"name": name, "index": 0, "devices": [0], "axes": None, "states": [state]}


@pytest.fixture
def nvbench_file(tmp_path):
    def write(*benchmarks):
        path = tmp_path / "nvbench.json"
        path.write_text(json.dumps({"meta": {"argv": []}, "devices": [], "benchmarks": list(benchmarks)}))
        return path

    return write


def test_cold_and_batch_means_are_read_and_a_graph_is_divided_by_its_calls(nvbench_file):
    path = nvbench_file(
        benchmark(
            "o-tp8-m1-triton.cold.1", summary("nv/cold/time/cpu/mean", 1.0), summary("nv/cold/time/gpu/mean", 7e-6)
        ),
        benchmark(
            "o-tp8-m1-triton.batch.95", summary("nv/cold/time/gpu/mean", 1.0), summary("nv/batch/time/gpu/mean", 475e-6)
        ),
    )
    times, without = read_nvbench(path)
    assert times == {"o-tp8-m1-triton": {"cold": pytest.approx(7e-6), "batch": pytest.approx(5e-6)}}
    assert not without
    assert benchmark_name("o-tp8-m1-triton", "batch", 95) == "o-tp8-m1-triton.batch.95"


def test_a_skipped_or_empty_state_gives_a_reason_and_no_time(nvbench_file):
    path = nvbench_file(benchmark("a.cold.1", skipped="Deadlock"), benchmark("b.batch.2"))
    assert read_nvbench(path) == ({}, {"a cold": "Deadlock", "b batch": "no time in it"})


@pytest.mark.parametrize("text", ["", "[]", '{"benchmarks_of": 1}'])
def test_a_file_that_nvbench_did_not_finish_is_refused(tmp_path, text):
    (tmp_path / "nvbench.json").write_text(text)
    with pytest.raises(ValueError, match=r"nvbench\.json is no NVBench result"):
        read_nvbench(tmp_path / "nvbench.json")


@pytest.mark.parametrize(
    ("chain", "batch", "agrees"),
    [
        (102.9e-6, 100e-6, True),  # 2.9 % over
        (97.1e-6, 100e-6, True),
        (103.1e-6, 100e-6, False),  # 3.1 %
        (96.9e-6, 100e-6, False),
        (60e-6, 50e-6, None),  # 50 us is not above 50 us: reported only
    ],
)
def test_nvbench_has_to_agree_within_three_percent_above_50_us(chain, batch, agrees):
    (pair,) = compare_clocks({"case": {"chain": chain}}, {"case": {"batch": batch}}, {})
    assert pair.agrees is agrees


@pytest.mark.parametrize(
    ("chain", "duration", "agrees"),
    [
        (6.6e-6, 5e-6, True),
        (6.7e-6, 5e-6, False),
        (104.4e-6, 100e-6, True),
        (104.6e-6, 100e-6, False),
        (3.2e-6, 5e-6, False),
    ],
)
def test_ncu_has_to_agree_within_1500_ns_and_three_percent(chain, duration, agrees):
    # limits: 1.5 + 0.15 = 1.65 us at 5 us; 1.5 + 3 = 4.5 us at 100 us
    (pair,) = compare_clocks({"case": {"chain": chain}}, {}, {"case": duration})
    assert pair.agrees is agrees


def test_the_isolated_clock_stands_beside_ncu_unjudged_and_beside_cold_judged():
    found = compare_clocks({"case": {"isolated": 200e-6}}, {"case": {"cold": 100e-6}}, {"case": 100e-6})
    assert {pair.other: pair.agrees for pair in found} == {"nvbench cold": False, "ncu": None}


def test_a_clock_that_is_apart_is_reported_with_its_offset_and_not_judged():
    ours = {"a": {"chain": 110e-6}, "b": {"chain": 100e-6}}
    found = compare_clocks(ours, {"a": {"batch": 100e-6}, "b": {"batch": 100e-6}}, {})
    verdict = judge_clocks(ours, found, [])
    assert verdict.outcome == "passed"
    assert verdict.detail == (
        "1 of 2 apart, reported and not judged: a chain 110.00 us is +10.00 us (+10.0%) off nvbench batch"
    )
    assert [pair["agrees"] for pair in verdict.figures["pairs"]] == [False, True]
    assert verdict.figures["apart"] == 1


def test_a_tool_that_ended_at_its_limit_leaves_the_step_unfinished_with_what_was_compared():
    ours = {"a": {"chain": 100e-6}}
    verdict = judge_clocks(ours, compare_clocks(ours, {}, {"a": 99e-6}), ["b"], ["NVBench did not end within 9 s"])
    assert verdict.outcome == "unfinished"
    assert verdict.detail.startswith("all 1 agree; furthest: a chain")
    assert verdict.detail.endswith("; not run: b; NVBench did not end within 9 s")
    assert judge_clocks(ours, [], [], ["NVBench did not end within 9 s"]).outcome == "unfinished"


def test_what_could_not_be_compared_is_said_beside_a_pass_and_alone_is_no_pass():
    ours = {"a": {"chain": 100e-6}}
    passed = judge_clocks(ours, compare_clocks(ours, {}, {"a": 99e-6}), ["NVBench: not installed: cuda-bench"])
    assert passed.outcome == "passed"
    assert passed.detail.endswith("; not run: NVBench: not installed: cuda-bench")
    nothing = judge_clocks(ours, [], ["a", "b"])
    assert (nothing.outcome, nothing.detail) == ("not_run", "nothing to compare with; not run: a; not run: b")
    assert nothing.figures["ours"] == ours


def test_durations_come_from_the_table_of_the_dram_step_or_a_reason(tmp_path):
    assert clock.read_ncu_durations(tmp_path / "ncu.csv")[1].endswith("ncu.csv is not there; the dram step writes it")
    (tmp_path / "ncu.csv").write_text(MARKED)
    durations, reason = clock.read_ncu_durations(tmp_path / "ncu.csv")
    assert list(durations.values()) == [pytest.approx(6.5e-6)]  # calls of 5 + 2 and of 6 us
    assert reason is None
    (tmp_path / "ncu.csv").write_text("==ERROR== ERR_NVGPUCTRPERM - no")
    assert "ERR_NVGPUCTRPERM" in clock.read_ncu_durations(tmp_path / "ncu.csv")[1]


def test_without_cuda_bench_that_part_is_not_run_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "find_spec", lambda name: None)
    found = clock.run_nvbench(tmp_path / "nvbench.json", 60)
    assert found == ({}, ("NVBench: not installed: cuda-bench, cuda-bindings",), ())


def test_an_nvbench_that_dies_costs_its_own_part_only(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "why_no_nvbench", lambda: None)
    monkeypatch.setattr(clock.sys, "executable", "/bin/false")
    (missing,) = clock.run_nvbench(tmp_path / "nvbench.json", 60).missing
    assert missing.startswith("NVBench: exit status 1, nvbench.json is no")
    (missing,) = clock.run_nvbench(tmp_path / "nvbench.json", 5).missing
    assert missing == "NVBench: 5 s are left, it needs 10"


def test_an_nvbench_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    stub = tmp_path / "python"
    stub.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path / 'pid'}\nwait\n")
    stub.chmod(0o755)
    monkeypatch.setattr(clock, "why_no_nvbench", lambda: None)
    monkeypatch.setattr(clock.sys, "executable", str(stub))
    monkeypatch.setattr(clock, "GRACE_SECONDS", 9.0)
    found = clock.run_nvbench(tmp_path / "nvbench.json", 10.5)
    assert found == ({}, (), ("NVBench did not end within 2 s",))
    assert gone(int((tmp_path / "pid").read_text()))
