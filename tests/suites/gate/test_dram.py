"""ncu's table, as `--csv` writes it, and the verdict on the bytes in it."""

import pytest

from specs.ncu import parse_kernels
from suites.gate.dram import (
    PROFILED_CASES,
    READ_CASES,
    CallCounters,
    counters_by_call,
    judge_dram,
    judge_table,
    max_passes,
    ncu_command,
)
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
    assert judge_table("==WARNING== No kernels were profiled.").outcome == "failed"
    assert judge_table(table(kernel(0, "k", "(1, 1, 1)", "n/a", "5"))).outcome == "failed"


def test_all_kernels_of_a_call_are_added_up_and_what_comes_before_a_mark_is_left_out():
    calls = counters_by_call(parse_kernels(MARKED))
    assert set(calls) == {3}
    first, second = calls[3]
    assert first == CallCounters(20_001_000, pytest.approx(7e-6), 2)
    assert second.kernels == 1


def rows(cases, share=1.0):
    """A mark and a call for each case."""
    kernels = []
    for case in cases:
        mark = f"({PROFILED_CASES.index(case) + 1}, 1, 1)"
        kernels.append(kernel(len(kernels), "_gate_mark", mark, "0", "1,100"))
        kernels.append(kernel(len(kernels), "_skinny", "(264, 1, 1)", f"{share * case.weight_bytes:.0f}", "6,000"))
    return table(*kernels)


def test_a_table_that_ends_in_the_middle_of_a_call_is_judged_on_the_calls_before_it():
    text = rows([READ_CASES[0], CUBLAS, READ_CASES[1]])
    lines = text.splitlines()
    for left_out in (2, 3, 4):  # the last lines: a metric of the call's kernel, all of it, a metric of its mark
        half = "\n".join(lines[:-left_out])
        verdict = judge_table(half, "ncu did not end within 9 s")
        assert verdict.outcome == "unfinished"
        assert verdict.detail.startswith("ncu did not end within 9 s; the calls before that: 2 cases, least 1.000")
        assert set(verdict.figures) == {READ_CASES[0].name, CUBLAS.name}
    assert judge_table(text).outcome == "passed"
    cut = judge_table("\n".join(lines[:-2]))
    assert cut.outcome == "unfinished"
    assert cut.detail.startswith("ncu's table is cut off: kernel 5 (_skinny): ")


def test_too_few_bytes_in_a_table_that_is_cut_off_still_fail():
    verdict = judge_table(rows([READ_CASES[0], CUBLAS, READ_CASES[1]], 0.5), "ncu did not end within 9 s")
    assert verdict.outcome == "failed"
    assert f"{READ_CASES[0].name} 0.500" in verdict.detail


def test_a_kernel_without_its_bytes_in_the_middle_of_a_table_fails():
    text = rows([READ_CASES[0], CUBLAS]).replace(f'"{READ_CASES[0].weight_bytes}"', '"n/a"', 1)
    assert judge_table(text).outcome == "failed"


def test_no_table_at_all_at_the_limit_is_unfinished():
    verdict = judge_table("==PROF== Connected", "ncu did not end within 9 s")
    assert (verdict.outcome, verdict.detail) == (
        "unfinished",
        "ncu did not end within 9 s; ncu wrote no table of kernels",
    )


CUBLAS = next(case for case in READ_CASES if case.implementation == "torch")


def counted(share, case=READ_CASES[0]):
    seen = {} if case == CUBLAS else counted(1.0, CUBLAS)
    return seen | {
        PROFILED_CASES.index(case) + 1: [
            CallCounters(share * case.weight_bytes, 5e-6, 1),
            CallCounters(2 * case.weight_bytes, 7e-6, 1),
        ]
    }


def test_a_call_that_reads_too_little_fails_and_is_named():
    verdict = judge_dram(counted(0.96), 1)
    assert verdict.outcome == "failed"
    assert verdict.detail.startswith("under 0.97 of the weights from DRAM: o-tp8-m1-triton 0.960; not seen: ")


def test_calls_that_read_their_weights_pass_and_leave_their_durations():
    verdict = judge_dram(counted(0.98), 1)
    assert verdict.outcome == "passed"
    assert verdict.figures["o-tp8-m1-triton"]["least_share_read"] == pytest.approx(0.98)
    assert verdict.figures["o-tp8-m1-triton"]["mean_seconds"] == pytest.approx(6e-6)


def test_a_case_whose_bytes_are_not_judged_cannot_pass_the_step():
    unjudged = next(case for case in PROFILED_CASES if case not in READ_CASES)
    assert judge_dram(counted(1.0, unjudged), 1).outcome == "failed"
    assert judge_dram({}, 1).detail == "ncu saw none of the calls"


def test_cases_that_were_not_seen_are_named_and_ours_and_cublas_have_to_be():
    assert "not seen: " in judge_dram(counted(1.0), 1).detail
    assert READ_CASES[-1].name in judge_dram(counted(1.0), 1).detail
    verdict = judge_dram(counted(1.0, CUBLAS), 1)
    assert verdict.outcome == "failed"
    assert "both ours and cuBLAS" in verdict.detail


def test_kernels_that_ncu_ran_more_than_once_are_said():
    assert max_passes(table(passes=2)) == 2
    assert max_passes(table()) == 1
    assert "2 times over" in judge_dram(counted(1.0), 2).detail


@pytest.mark.parametrize(
    "line",
    [
        "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters",
        "==ERROR== Failed to initialize the profiler: LibraryNotLoaded",
    ],
)
def test_a_machine_that_hides_its_counters_is_not_a_failure_of_ours(line):
    verdict = judge_table(f"==PROF== Connected\n{line}\n")
    assert verdict.outcome == "not_run"
    assert line in verdict.detail


def test_ncu_leaves_clocks_and_caches_alone(tmp_path):
    told = " ".join(ncu_command("ncu", tmp_path / "ncu.csv"))
    assert "--clock-control none" in told
    assert "--cache-control none" in told
    assert "--profile-from-start off" in told


def test_weight_bytes_by_hand():
    # O at tp 8: 8192 x 1024 x 2 bytes = 16 MiB; gate+up at tp 1: 57344 x 8192 x 2 bytes = 896 MiB
    bytes_of = {case.shard: case.weight_bytes for case in PROFILED_CASES}
    assert bytes_of["o-tp8"] == 16 * 2**20
    assert bytes_of["gate_up-tp1"] == 896 * 2**20
