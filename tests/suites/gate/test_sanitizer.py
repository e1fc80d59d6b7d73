"""compute-sanitizer's words, and that its silence counts only after a planted fault was seen."""

import pytest

from suites.gate.sanitizer import judge, read

CLEAN = "========= COMPUTE-SANITIZER\nright: triton_skinny\n========= ERROR SUMMARY: 0 errors\n"
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
WARNED = """========= COMPUTE-SANITIZER
========= Warning: Race reported between Write access at _skinny+0x60
=========     and Read access at _skinny+0xa0 [8 hazards]
========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)
"""
UNSUPPORTED = "========= COMPUTE-SANITIZER\n========= Error: Device not supported. Please refer to the documentation.\n"


def test_summaries_are_read():
    assert read(CLEAN, 0).errors == 0
    assert (read(OUT_OF_BOUNDS, 1).errors, read(OUT_OF_BOUNDS, 1).first) == (
        1,
        "Invalid __global__ write of size 4 bytes",
    )
    assert read(RACE, 0).errors == 1
    assert read(RACE, 0).first.startswith("Error: Race reported between Write access")
    assert (read(WARNED, 0).errors, read(WARNED, 0).warnings) == (0, 1)
    assert read("Traceback\nModuleNotFoundError: cupy\n", 1).errors is None


@pytest.mark.parametrize(("tool", "fault", "clean"), [("memcheck", OUT_OF_BOUNDS, CLEAN), ("racecheck", RACE, NO_RACE)])
def test_a_seen_fault_and_clean_kernels_pass(tool, fault, clean):
    verdict = judge(tool, read(fault, 1), read(clean, 0))
    assert verdict.outcome == "passed"
    assert verdict.figures == {"planted_errors": 1, "errors": 0, "warnings": 0}


@pytest.mark.parametrize("blind", [CLEAN, NO_RACE, "Traceback\nImportError\n"])
def test_a_fault_that_is_not_seen_fails_whatever_the_kernels_do(blind):
    verdict = judge("memcheck", read(blind, 0), read(CLEAN, 0))
    assert verdict.outcome == "failed"
    assert "memcheck did not see the planted fault" in verdict.detail


def test_an_error_in_our_kernels_fails_with_its_words():
    verdict = judge("memcheck", read(OUT_OF_BOUNDS, 1), read(OUT_OF_BOUNDS, 1))
    assert (verdict.outcome, verdict.detail) == (
        "failed",
        "memcheck: 1 errors in our kernels; first: Invalid __global__ write of size 4 bytes",
    )


def test_an_exercise_that_broke_off_or_was_wrong_is_no_pass():
    assert judge("memcheck", read(OUT_OF_BOUNDS, 1), read("Traceback\n", 1)).outcome == "failed"
    assert judge("memcheck", read(OUT_OF_BOUNDS, 1), read(CLEAN, 1)).outcome == "failed"


def test_warnings_are_said_and_do_not_fail():
    verdict = judge("racecheck", read(RACE, 0), read(WARNED, 0))
    assert verdict.outcome == "passed"
    assert "1 warnings (first: Warning: Race reported" in verdict.detail


def test_a_device_that_cannot_be_instrumented_is_not_a_failure_of_ours():
    verdict = judge("memcheck", read(UNSUPPORTED, 255), read(UNSUPPORTED, 255))
    assert verdict.outcome == "not_run"
    assert "Device not supported" in verdict.detail
