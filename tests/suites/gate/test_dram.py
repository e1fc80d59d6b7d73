"""ncu's table, as `--csv` writes it, and the verdict on the bytes in it."""

import pytest

from specs.ncu import profiled
from suites.gate.cases import PROFILED, READ_CASES
from suites.gate.dram import command, judge, read_table
from suites.gate.ncu import CallCounters, by_call, most_passes
from tests.specs.planted_ncu import kernel, table

MARKED = table(
    kernel(0, "before_any_mark", "(9, 1, 1)", "1", "1"),
    kernel(1, "_gate_mark", "(3, 1, 1)", "0", "1,100"),
    kernel(2, "splitKreduce, part one", "(64, 2, 1)", "20,000,000", "5,000"),
    kernel(3, "splitKreduce_kernel", "(64, 1, 1)", "1,000", "2,000"),
    kernel(4, "_gate_mark", "(3, 1, 1)", "0", "1,100"),
    kernel(5, "_skinny", "(264, 1, 1)", "21,000,000", "6,000"),
)


def test_what_cannot_be_read_fails_the_step():
    assert read_table("==WARNING== No kernels were profiled.").outcome == "failed"
    assert read_table(table(kernel(0, "k", "(1, 1, 1)", "n/a", "5"))).outcome == "failed"


def test_all_kernels_of_a_call_are_added_up_and_what_comes_before_a_mark_is_left_out():
    calls = by_call(profiled(MARKED))
    assert set(calls) == {3}
    first, second = calls[3]
    assert first == CallCounters(20_001_000, pytest.approx(7e-6), 2)
    assert second.kernels == 1


CUBLAS = next(case for case in READ_CASES if case.implementation == "torch")


def counted(share, case=READ_CASES[0]):
    seen = {} if case == CUBLAS else counted(1.0, CUBLAS)
    return seen | {
        PROFILED.index(case) + 1: [
            CallCounters(share * case.weight_bytes, 5e-6, 1),
            CallCounters(2 * case.weight_bytes, 7e-6, 1),
        ]
    }


def test_a_call_that_reads_too_little_fails_and_is_named():
    verdict = judge(counted(0.96), 1)
    assert verdict.outcome == "failed"
    assert verdict.detail.startswith("under 0.97 of the weights from DRAM: o-tp8-m1-triton 0.960; not seen: ")


def test_calls_that_read_their_weights_pass_and_leave_their_durations():
    verdict = judge(counted(0.98), 1)
    assert verdict.outcome == "passed"
    assert verdict.figures["o-tp8-m1-triton"]["least_share_read"] == pytest.approx(0.98)
    assert verdict.figures["o-tp8-m1-triton"]["mean_seconds"] == pytest.approx(6e-6)


def test_a_case_whose_bytes_are_not_judged_cannot_pass_the_step():
    unjudged = next(case for case in PROFILED if case not in READ_CASES)
    assert judge(counted(1.0, unjudged), 1).outcome == "failed"
    assert judge({}, 1).detail == "ncu saw none of the calls"


def test_cases_that_were_not_seen_are_named_and_ours_and_cublas_have_to_be():
    assert "not seen: " in judge(counted(1.0), 1).detail
    assert READ_CASES[-1].name in judge(counted(1.0), 1).detail
    verdict = judge(counted(1.0, CUBLAS), 1)
    assert verdict.outcome == "failed"
    assert "both ours and cuBLAS" in verdict.detail


def test_kernels_that_ncu_ran_more_than_once_are_said():
    assert most_passes(table(passes=2)) == 2
    assert most_passes(table()) == 1
    assert "2 times over" in judge(counted(1.0), 2).detail


@pytest.mark.parametrize(
    "line",
    [
        "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters",
        "==ERROR== Failed to initialize the profiler: LibraryNotLoaded",
    ],
)
def test_a_machine_that_hides_its_counters_is_not_a_failure_of_ours(line):
    verdict = read_table(f"==PROF== Connected\n{line}\n")
    assert verdict.outcome == "not_run"
    assert line in verdict.detail


def test_ncu_leaves_clocks_and_caches_alone(tmp_path):
    told = " ".join(command("ncu", tmp_path / "ncu.csv"))
    assert "--clock-control none" in told
    assert "--cache-control none" in told
    assert "--profile-from-start off" in told


def test_weight_bytes_by_hand():
    # O at tp 8: 8192 x 1024 x 2 bytes = 16 MiB; gate+up at tp 1: 57344 x 8192 x 2 bytes = 896 MiB
    bytes_of = {case.shard: case.weight_bytes for case in PROFILED}
    assert bytes_of["o-tp8"] == 16 * 2**20
    assert bytes_of["gate_up-tp1"] == 896 * 2**20
