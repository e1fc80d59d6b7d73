"""compute-sanitizer's words, cut off or whole, and that its silence counts only after a planted fault was seen."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from suites.gate import exercise, sanitizer
from suites.gate.sanitizer import CHECKED_KERNELS, CONTROL_KERNEL, PLANTED_KERNELS, Finding, parse_run
from tests.suites.conftest import ROOT

CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
CALLS = (
    "calls: 2\nbegins 1: triton_read {}\nright: triton_read bf16 {}\nbegins 2: triton_gemm {}\nright: triton_gemm {}\n"
)
OUT_OF_BOUNDS = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at _fill+0xb0 in faults.py:33
=========     by thread (127,0,0) in block (0,0,0)
=========     Access at 0x7f1c8a0003fc is out of bounds
=========     and is 1 bytes after the nearest allocation at 0x7f1c8a000000 of size 1020 bytes
=========     Saved host backtrace up to driver entry point at kernel launch time
=========
========= ERROR SUMMARY: 1 error
"""
RACE = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at race+0x60 in race.cu:5
=========     and Read access at race+0xa0 in race.cu:7 [1008 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
NO_RACE = "========= COMPUTE-SANITIZER\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
HAZARDS = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at _control_sum+0x60 in faults.py:40
=========     and Write access at _control_sum+0x60 in faults.py:40 [96 hazards]
=========
========= Warning: Race reported between Write access at _rmsnorm+0x200 in rmsnorm.py:50
=========     and Write access at _rmsnorm+0x200 in rmsnorm.py:50 [64 hazards]
=========     and Write access at _rmsnorm+0x240 in rmsnorm.py:50 [32 hazards]
=========
========= Error: Race reported between Read access at _gemm+0x10 in gemm.py:7
=========     and Write access at _gemm+0x90 in gemm.py:9 [8 hazards]
=========
========= RACECHECK SUMMARY: 3 hazards displayed (2 errors, 1 warning)
"""
UNSUPPORTED = "========= COMPUTE-SANITIZER\n========= Error: Device not supported. Please refer to the documentation.\n"
NOT_STARTED = """========= COMPUTE-SANITIZER
========= Error: Target application terminated before first instrumented API call
========= Tracking kernels launched by child processes requires the --target-processes all option.
========= Error: couldn't find exit code.
"""
DEPRECATED = "Option kernel-regex is deprecated, please refer to the option kernel-name\n"
API_ERROR = """========= COMPUTE-SANITIZER
========= Program hit CUDA_ERROR_NOT_FOUND (error 500) due to "named symbol not found" on CUDA API call.
=========     Saved host backtrace up to driver entry point at error
=========
========= ERROR SUMMARY: 1 error
"""


def memory(planted, ours, output=CALLS, status=0, limit=0.0):
    return sanitizer.MEMCHECK.verdict(parse_run(planted, "", 1), parse_run(ours, output, status, limit))


def races(planted, ours, output=CALLS, status=0, limit=0.0):
    return sanitizer.RACECHECK.verdict(parse_run(planted, "", 0), parse_run(ours, output, status, limit))


def test_records_are_read_with_their_kernels():
    assert parse_run(CLEAN, "", 0).findings == ()
    assert parse_run(OUT_OF_BOUNDS, "", 1).findings == (Finding("_fill", "Invalid __global__ write of size 4 bytes"),)
    assert [(one.kernel, one.hazards, one.reads) for one in parse_run(HAZARDS, "", 0).findings] == [
        ("_control_sum", 96, False),
        ("_rmsnorm", 96, False),
        ("_gemm", 8, True),
    ]
    broke = parse_run("", "Traceback\nModuleNotFoundError: cupy\n", 1)
    assert (broke.findings, broke.summarised, broke.last_line) == ((), False, "ModuleNotFoundError: cupy")


@pytest.mark.parametrize(
    "place",
    [
        "race+0x60 in race.cu:5",
        "0x60 in race",
        "0x00000060 in ./race.cu:5:race(int *)",
        "race(int *)+0x60 in race.cu:5",
        "void race<(bool)0>(...)+0x60 in race.cu:5",
    ],
)
def test_a_kernel_is_found_however_the_tool_writes_its_place(place):
    told = f"========= Error: Race reported between Write access at {place}\n=========     and Read access at {place}"
    assert parse_run(f"{told} [4 hazards]\n", "", 0).findings[0] == Finding(
        "race", f"Error: Race reported between Write access at {place}", 4, True
    )
    split = told.replace("access at ", "access at\n=========     ")
    assert [one.kernel for one in parse_run(f"{split} [4 hazards]\n", "", 0).findings] == ["race"]
    assert parse_run(f"========= Invalid read\n=========     at {place}\n", "", 0).findings == (
        Finding("race", "Invalid read"),
    )


def test_a_log_that_was_cut_off_gives_what_was_seen():
    half = HAZARDS[: HAZARDS.index("========= Error: Race reported between Read access at _gemm")]
    assert [one.kernel for one in parse_run(half, "", None, 9.0).findings] == ["_control_sum", "_rmsnorm"]
    assert not parse_run(half, "", None, 9.0).summarised
    assert parse_run(OUT_OF_BOUNDS[:120], "", None, 9.0).findings == (
        Finding("_fill", "Invalid __global__ write of size 4 bytes"),
    )


@pytest.mark.parametrize(
    ("verdict", "fault", "clean"), [(memory, OUT_OF_BOUNDS, CLEAN), (races, RACE, NO_RACE)], ids=["memory", "races"]
)
def test_a_seen_fault_and_clean_kernels_pass(verdict, fault, clean):
    found = verdict(fault, clean)
    assert found.outcome == "passed"
    assert (found.figures["planted_errors"], found.figures["wrong"]) == (1, 0)
    assert "2 of 2 calls ended" in found.detail


@pytest.mark.parametrize("unseen", [CLEAN, API_ERROR, "Traceback\nImportError\n"])
def test_memcheck_that_does_not_see_its_fault_fails_whatever_the_kernels_do(unseen):
    verdict = memory(unseen, CLEAN)
    assert verdict.outcome == "failed"
    assert "memcheck did not see the planted fault" in verdict.detail


def test_racecheck_that_does_not_see_its_race_says_nothing():
    verdict = races(NO_RACE, HAZARDS)
    assert verdict.outcome == "not_run"
    assert verdict.detail.startswith("racecheck did not see the planted race: says nothing")


def test_an_error_in_our_kernels_fails_with_its_words_and_is_counted_as_wrong():
    ours = OUT_OF_BOUNDS.replace("_fill", "_skinny")
    verdict = memory(OUT_OF_BOUNDS, ours)
    assert (verdict.outcome, verdict.detail) == (
        "failed",
        "memcheck: 1 errors in _skinny; first: Invalid __global__ write of size 4 bytes",
    )
    assert (verdict.figures["wrong"], verdict.figures["kernels"]) == (1, ["_skinny"])


def test_an_error_of_the_api_is_no_error_of_a_kernel():
    assert memory(OUT_OF_BOUNDS, API_ERROR).figures["wrong"] == 0
    assert memory(OUT_OF_BOUNDS, API_ERROR).outcome == "passed"


def test_a_wrong_result_in_the_exercise_is_wrong():
    output = CALLS.replace("right: triton_gemm", "wrong: triton_gemm")
    for verdict in (memory(OUT_OF_BOUNDS, CLEAN, output, 1), races(RACE, NO_RACE, output, 1)):
        assert verdict.outcome == "failed"
        assert verdict.figures["wrong"] == 1
        assert "wrong: triton_gemm" in verdict.detail


def test_an_exercise_that_broke_off_is_no_pass_and_nothing_wrong():
    broke = memory(OUT_OF_BOUNDS, "", "calls: 9\nright: triton_read\nTraceback\nOutOfMemoryError: 1 GiB\n", 1)
    assert (broke.outcome, broke.figures["wrong"]) == ("failed", 0)
    assert "status 1, 1 of 9 calls ended; last line: OutOfMemoryError: 1 GiB" in broke.detail
    assert memory(OUT_OF_BOUNDS, CLEAN, CALLS, 1).outcome == "failed"
    assert races(RACE, "", "Traceback\n", 1).outcome == "unfinished"


CUT = CALLS[: CALLS.index("right: triton_gemm")]


def test_an_exercise_that_was_cut_off_is_unfinished_and_says_how_far_it_came():
    interrupted = f"{CUT}Traceback\nKeyboardInterrupt\n"
    verdict = memory(OUT_OF_BOUNDS, "========= COMPUTE-SANITIZER\n", interrupted, None, 41.0)
    assert (verdict.outcome, verdict.figures["wrong"]) == ("unfinished", 0)
    assert verdict.detail == (
        "memcheck did not end within 41 s: 1 of 2 calls ended without an error; the planted fault was seen; "
        "last line: begins 2: triton_gemm {}"
    )
    assert races(RACE, NO_RACE.splitlines()[0], CUT, None, 41.0).outcome == "unfinished"


def test_an_error_that_was_seen_before_the_limit_counts():
    verdict = memory(OUT_OF_BOUNDS, OUT_OF_BOUNDS[:120].replace("_fill", "_gemm"), CUT, None, 41.0)
    assert (verdict.outcome, verdict.figures["wrong"]) == ("failed", 1)
    assert "did not end within 41 s" in verdict.detail


def test_a_planted_fault_that_did_not_come_to_its_end_is_unfinished():
    found = sanitizer.MEMCHECK.verdict(parse_run("", "", None, 30.0), parse_run("", "", None, 30.0))
    assert found.outcome == "unfinished"
    assert found.detail.startswith("memcheck did not end within 30 s, at the planted fault")


def test_hazards_are_reported_by_kernel_beside_the_control_and_never_fail():
    output = CALLS.replace("triton_read", "control_sum")
    verdict = races(RACE, HAZARDS, output)
    assert verdict.outcome == "passed"
    assert verdict.figures["hazards"] == {
        "_rmsnorm": {"hazards": 96, "with_reads": 0, "records": 1},
        "_gemm": {"hazards": 8, "with_reads": 8, "records": 1},
    }
    assert verdict.figures["control"]["hazards"] == 96
    assert verdict.figures["wrong"] == 0
    assert "hazards, reported only: _gemm 8 (8 with reads), _rmsnorm 96; the control tl.sum: 96" in verdict.detail


def test_a_control_without_hazards_and_one_that_was_not_run_are_told_apart():
    assert "the control tl.sum: none" in races(RACE, NO_RACE, CALLS.replace("triton_read", "control_sum")).detail
    assert "the control tl.sum: not run" in races(RACE, NO_RACE, CALLS).detail


def test_a_device_that_cannot_be_instrumented_is_not_a_failure_of_ours():
    verdict = memory(UNSUPPORTED, UNSUPPORTED)
    assert verdict.outcome == "not_run"
    assert "Device not supported" in verdict.detail


def test_a_tool_that_cannot_start_programs_is_not_a_failure_of_ours_and_a_program_that_broke_off_is():
    planted = parse_run(NOT_STARTED, DEPRECATED, 255)
    verdict = sanitizer.MEMCHECK.verdict(planted, planted)
    assert verdict.outcome == "not_run"
    assert "Target application terminated before first instrumented API call" in verdict.detail
    broke = parse_run(NOT_STARTED, f"{DEPRECATED}Traceback\nModuleNotFoundError: triton\n", 255)
    verdict = sanitizer.MEMCHECK.verdict(broke, broke)
    assert verdict.outcome == "failed"
    assert verdict.detail.endswith("its last line: ModuleNotFoundError: triton")


def launched(text):
    """Names in front of a launch's grid, which no other subscript is called with."""
    return set(re.findall(r"(?<![\w.])([A-Za-z_]\w*)\[\(?[^\[\]]*\]\(", text))


def test_every_kernel_of_ours_passes_the_filter():
    sources = [path.read_text() for path in Path(ROOT, "kernels").glob("*.py")]
    compiled = {name for text in sources for name in re.findall(r"@triton\.jit[^\n]*\ndef (\w+)", text)}
    triton = {name for text in sources for name in launched(text)} & compiled
    cuda = set(re.findall(r"__launch_bounds__\([^)]*\)\s*(\w+)\(", Path(ROOT, "kernels/csrc/gemv.cu").read_text()))
    assert len(triton) > 5
    assert triton | cuda == set(CHECKED_KERNELS)
    told = sanitizer.sanitizer_command("racecheck", Path("x.log"))
    filtered = {word.removeprefix("kne=") for switch, word in pairwise(told) if switch == "--kernel-regex"}
    assert filtered == {*CHECKED_KERNELS, CONTROL_KERNEL, *PLANTED_KERNELS}


def test_the_planted_kernels_and_the_control_are_named_as_the_filter_names_them():
    assert exercise._control_sum.fn.__name__ == CONTROL_KERNEL
    assert {exercise._fill.fn.__name__, *re.findall(r"__global__ void (\w+)\(", exercise.RACE_SOURCE)} == set(
        PLANTED_KERNELS
    )
    assert CONTROL_KERNEL.strip("_") == exercise.CONTROL.name
