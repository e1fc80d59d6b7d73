"""Nothing measured is lost: Ctrl-C, resuming, recovering, a full disk."""

import errno
import json
import os

import pytest
from pytest_benchmark.session import BenchmarkSession

from kernels.timing.device import Device
from reports.importers.result_file import journal_to_result
from specs import journal
from suites.probes.kernel import KernelBench
from tests.suites.conftest import GOOD

INTERRUPTED = """
DRAWN = []

def inputs(draw, **shape):
    DRAWN.append(draw)
    if len(DRAWN) == {draws}:
        raise KeyboardInterrupt
    return TORCH_LINEAR.inputs(draw, **shape)

def bench_interrupted(measure):
    measure(replace(TORCH_LINEAR, inputs=inputs), "decode", COLD, **SHAPE)
"""
# Inputs are drawn once for the plan and 256 times (the copies) a visit.
SECOND_VISIT = 1 + 256 + 1


def interrupt(bench, *options):
    """A run of two cases that a Ctrl-C ends in the second pass, when one case has been visited again."""
    bench.write(GOOD, INTERRUPTED.format(draws=SECOND_VISIT))
    result = bench.run("--passes", "4", *options)
    assert result.ret == 2
    return result


def samples(bench):
    return {
        name.split("::")[1]: e["stats"]["data"] for name, e in journal.read_journal(bench.journal).benchmarks.items()
    }


def test_an_interrupted_run_keeps_what_it_measured_and_says_how_to_go_on(bench):
    result = interrupt(bench)
    result.stdout.fnmatch_lines(["interrupted: what was measured is in *go on with --resume*", "*reports recover *"])
    assert samples(bench)["bench_good"]
    assert not bench.json.exists()


def test_recovering_names_the_cases_that_were_never_reached(bench):
    bench.write(INTERRUPTED.format(draws=2), GOOD)
    assert bench.run("--passes", "2").ret == 2
    found = journal_to_result(journal.read_journal(bench.journal))
    reasons = {one["case"].split("::")[1]: one["reason"] for one in found["shardbench"]["not_run"]}
    assert set(reasons) == {"bench_interrupted", "bench_good", "bench_also_good"}
    assert set(reasons.values()) == {"the run ended before this case was reached"}


def test_resuming_with_fewer_cases_says_where_the_others_are(bench):
    bench.write(GOOD)
    bench.run("--passes", "1")
    result = bench.run("--passes", "1", "--resume", "-k", "also_good")
    result.stdout.fnmatch_lines(["1 more cases of that journal are not selected now*"])


def test_resuming_gives_the_full_file_and_measures_nothing_twice(bench):
    interrupt(bench)
    before = samples(bench)
    bench.write(GOOD, INTERRUPTED.format(draws=-1))
    result = bench.run("--passes", "4", "--resume")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["resumed: * cases have samples in *"])
    cases = bench.cases()
    assert set(cases) == {"bench_good", "bench_also_good", "bench_interrupted"}
    assert all(case["extra_info"]["passes"] == 4 for case in cases.values())
    for name, data in before.items():
        assert cases[name]["stats"]["data"][: len(data)] == data


def test_a_run_that_was_complete_resumes_to_the_same_samples(bench):
    bench.write(GOOD)
    bench.run("--passes", "2")
    first = {name: case["stats"]["data"] for name, case in bench.cases().items()}
    bench.json.unlink()
    bench.run("--passes", "2", "--resume").assert_outcomes(passed=2)
    assert {name: case["stats"]["data"] for name, case in bench.cases().items()} == first


CRASHING = """
CRASH_DRAWN = []

def crash_inputs(draw, **shape):
    CRASH_DRAWN.append(draw)
    if len(CRASH_DRAWN) == {draws}:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return TORCH_LINEAR.inputs(draw, **shape)

def bench_crash(measure):
    measure(replace(TORCH_LINEAR, inputs=crash_inputs), "decode", COLD, Shard("m", 4, 1, "o", 64, 32), **SHAPE)
"""
FIRST_VISIT = 1 + 1


@pytest.fixture
def fragile(bench, monkeypatch):
    """A device that is lost to its process, as a GPU is, once the crashing case has raised."""

    def fragile(draws, *options):
        bench.write(CRASHING.format(draws=draws), GOOD)
        lost = []
        monkeypatch.setattr(Device, "lost", lambda self: "the GPU is lost to this process" if lost else "")
        real = KernelBench.visit

        def visit(self, entry, share):
            try:
                return real(self, entry, share)
            except RuntimeError:
                lost.append(entry)
                raise

        monkeypatch.setattr(KernelBench, "visit", visit)
        result = bench.run("--passes", "4", *options)
        monkeypatch.setattr(KernelBench, "visit", real)
        return result

    return fragile


def test_resuming_skips_the_case_that_took_the_device_down_and_measures_the_rest(bench, fragile):
    fragile(FIRST_VISIT).stdout.fnmatch_lines(["*CUDA error: an illegal memory access*"])
    assert not journal.read_journal(bench.journal).benchmarks
    result = fragile(FIRST_VISIT, "--resume")
    result.stdout.fnmatch_lines(["skipped: bench_it.py::bench_crash ended the run before this one (*illegal memory*)*"])
    result.assert_outcomes(passed=2, failed=1)
    assert {*bench.cases()} == {"bench_good", "bench_also_good"}
    (failed,) = bench.result()["shardbench"]["failed"]
    assert failed["case"] == "bench_it.py::bench_crash"
    assert failed["reason"].endswith("illegal memory access was encountered; --resume does not try it again")
    assert journal_to_result(journal.read_journal(bench.journal))["shardbench"]["failed"] == [failed], (
        "recover says the same"
    )


def test_what_it_measured_before_it_took_the_device_down_stays(bench, fragile):
    fragile(SECOND_VISIT)
    (before,) = [data for name, data in samples(bench).items() if name == "bench_crash"]
    fragile(FIRST_VISIT, "--resume")
    again = fragile(FIRST_VISIT, "--resume")
    again.assert_outcomes(passed=3)
    again.stdout.fnmatch_lines(["skipped: *bench_crash*"])
    crash = bench.cases()["bench_crash"]
    assert crash["stats"]["data"] == before
    assert crash["extra_info"]["stopped_by"].count("--resume does not try it again") == 1


def test_resuming_tries_again_what_ran_out_of_memory(bench):
    bench.write(OUT_OF_MEMORY, GOOD)
    bench.run("--passes", "1").assert_outcomes(passed=2, failed=1)
    bench.write(OUT_OF_MEMORY.replace("raise MemoryError", "TORCH_LINEAR.run(x, weight, out)"), GOOD)
    result = bench.run("--passes", "1", "--resume")
    result.assert_outcomes(passed=3)
    assert "skipped:" not in result.stdout.str()


OUT_OF_MEMORY = """
def short(x, weight, out):
    raise MemoryError

def bench_short(measure):
    measure(replace(TORCH_LINEAR, run=short), "decode", COLD, **SHAPE)
"""


def test_resuming_without_a_journal_starts_anew(bench):
    bench.write(GOOD)
    result = bench.run("--passes", "1", "--resume")
    result.stdout.fnmatch_lines(["nothing to resume: *"])
    result.assert_outcomes(passed=2)


def test_a_new_run_keeps_the_journal_before_it(bench):
    bench.write(GOOD)
    bench.run("--passes", "1")
    before = bench.journal.read_text()
    result = bench.run("--passes", "1")
    result.stdout.fnmatch_lines(["an earlier run's journal is kept as *previous*"])
    (kept,) = bench.pytester.path.glob("*previous*")
    assert kept.read_text() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run["machine_info"].update(torch="1.0"), "*measured with torch 1.0, this is *start again*"),
        (lambda run: run.update(shardbench_schema=99), "*written with schema 99*update shardbench*"),
    ],
)
def test_a_journal_of_another_machine_is_refused(bench, change, message):
    bench.write(GOOD)
    bench.run("--passes", "1")
    first, *others = bench.journal.read_text().splitlines()
    header = json.loads(first)
    change(header["run"])
    bench.journal.write_text("\n".join([json.dumps(header), *others]) + "\n")
    result = bench.run("--passes", "1", "--resume")
    assert result.ret == 4
    result.stderr.fnmatch_lines([message])


def test_a_case_that_changed_its_shape_is_refused(bench):
    bench.write(GOOD)
    bench.run("--passes", "1")
    bench.write(GOOD.replace("**SHAPE", "tokens=5, n=64, k=32"))
    result = bench.run("--passes", "1", "--resume")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*was measured at another shape; start again without --resume*"])


def test_a_disk_that_is_full_when_the_json_is_written_says_where_all_of_it_is(bench, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(BenchmarkSession, "save_json", full)
    bench.write(GOOD)
    result = bench.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*out.json cannot be written (No space left on device); all that was measured is in *"]
    )
    result.stdout.fnmatch_lines(["*measured cases are in no JSON*", "*python -m reports recover *"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_a_full_disk_ends_the_run_with_one_line(bench, monkeypatch):
    bench.write(GOOD)
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    result = bench.run("--passes", "2")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*cannot write the journal (No space left on device)*--resume*"])
    assert samples(bench)
