"""Whole runs: what is in the result file, what is not, and what the user is told."""

import statistics

import pytest

from specs.measurement import Measurement
from suites.environment import machine_info
from tests.suites.conftest import GOOD


def test_a_case_carries_all_that_the_contract_names(bench):
    bench.write(GOOD)
    bench.run("--passes", "3").assert_outcomes(passed=2)
    entry = bench.cases()["bench_good"]
    info = entry["extra_info"]
    # flops 2*3*64*32 = 12,288; bytes (64*32 + 3*32 + 3*64) * 4 = 2336 * 4 = 9,344
    expected = {
        "op": "linear", "implementation": "torch", "model": "m", "layer": "qkv", "tp": 2, "pp": 1, "tokens": 3,
        "n": 64, "k": 32, "dtype": "fp32", "flops": 12288, "hbm_bytes": 9344, "wire_bytes_sent_per_rank": 0,
        "cache": "cold", "launch": "eager", "clock": "perf_counter", "passes": 3, "ranks": 1, "provenance": "measured",
        "throttled": None, "message_bytes": None,
    }  # fmt: skip
    assert {key: info[key] for key in expected} == expected
    assert info["relative_error"] < 2e-5
    assert info["noise"] >= 0
    low, high = info["interval_seconds"]
    assert low < entry["stats"]["median"] < high
    assert sum(info["pass_rounds"]) == entry["stats"]["rounds"] == len(entry["stats"]["data"])
    assert entry["group"] == "decode"
    assert entry["stats"]["median"] == statistics.median(entry["stats"]["data"])


def test_the_file_says_where_it_was_measured_and_names_no_host(bench):
    bench.write(GOOD)
    bench.run("--passes", "1")
    machine = bench.result()["machine_info"]
    assert machine["shardbench_schema"] == 1
    assert "node" not in machine
    for fact in ("device", "arch", "llc_bytes", "torch", "torch_threads", "cpu", "variables", "memory_bytes"):
        assert machine[fact] is not None, fact


def test_an_entry_reads_back_as_the_record_that_wrote_it(bench):
    bench.write(GOOD)
    bench.run("--passes", "2")
    entry = bench.cases()["bench_good"]
    record = Measurement.from_benchmark(entry)
    assert record.extra_info() == entry["extra_info"]


CHOOSING = """
def choice(*, arch, dtype, tokens, n, k):
    assert (arch, dtype, tokens, n, k) == ("cpu", "fp32", 3, 64, 32)
    return "rows 128 (static model)"

def broken(**shape):
    raise KeyError("no such size\\nand more")

def bench_choosing(measure):
    measure(replace(TORCH_LINEAR, configuration=choice), "decode", COLD, **SHAPE)

def bench_broken_label(measure):
    measure(replace(TORCH_LINEAR, configuration=broken), "decode", COLD, **SHAPE)
"""


def test_what_a_kernel_chose_is_in_the_record_and_a_broken_label_costs_no_samples(bench):
    bench.write(CHOOSING, GOOD)
    bench.run("--passes", "1").assert_outcomes(passed=4)
    infos = {name: entry["extra_info"] for name, entry in bench.cases().items()}
    assert infos["bench_choosing"]["configuration"] == "rows 128 (static model)"
    assert infos["bench_broken_label"]["configuration"] == r"not told: KeyError: 'no such size\nand more'"
    assert "configuration" not in infos["bench_good"]


def test_weights_rotate_through_the_whole_pool_when_cold_and_not_when_hot(bench):
    bench.write(GOOD.replace("COLD,", "COLD._replace(cache='hot'),", 1))
    bench.run("--passes", "1")
    cases = bench.cases()
    assert cases["bench_good"]["extra_info"]["copies"] == 1
    # 32 x 64 KiB of pool / (64 x 32 x 4 bytes of weight) = 256 copies
    assert cases["bench_also_good"]["extra_info"]["copies"] == 256


def test_copies_that_fit_a_cache_are_not_called_cold(bench):
    bench.write(GOOD.replace("**SHAPE", "tokens=1, n=1, k=2", 1))
    bench.run("--passes", "1")
    assert bench.cases()["bench_good"]["extra_info"]["cache"] == "rotated-4096"


WRONG = """
def off_by_a_little(x, weight, out):
    TORCH_LINEAR.run(x, weight, out)
    out[0, 0] += 0.01 * torch.linalg.vector_norm(out)

def unwritten(x, weight, out):
    out[1:] = x[1:] @ weight.t()

@pytest.mark.parametrize("run", [off_by_a_little, unwritten])
def bench_wrong(measure, run):
    measure(replace(TORCH_LINEAR, run=run), "decode", COLD, **SHAPE)
"""


def test_a_wrong_kernel_leaves_no_number(bench):
    bench.write(WRONG, GOOD)
    result = bench.run("--passes", "1")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*wrong result: relative error 0.0* is over 2e-05; not timed"])
    result.stdout.fnmatch_lines(["*relative error nan*an element of the output was not written*"])
    assert sorted(bench.cases()) == ["bench_also_good", "bench_good"]
    failed = bench.result()["shardbench"]["failed"]
    assert [failure["case"].split("::")[1] for failure in failed] == [
        "bench_wrong[off_by_a_little]",
        "bench_wrong[unwritten]",
    ]


BROKEN = """
def bench_broken(measure):
    measure(planted(broken), "decode", COLD, **SHAPE)
"""


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise torch.OutOfMemoryError('CUDA out of memory')", "*out of memory: needs about*are free*try fewer*"),
        ("raise MemoryError", "*out of memory: needs about*"),
        (
            "raise RuntimeError('[enforce fail] DefaultCPUAllocator: can\\'t allocate memory: 8 bytes')",
            "*out of memory*",
        ),
        ("raise type('OutOfResources', (Exception,), {})('shared memory')", "*OutOfResources: shared memory*"),
        ("raise AssertionError", "*AssertionError*"),
        ("raise RuntimeError('device-side assert')", "*RuntimeError: device-side assert*"),
    ],
)
def test_a_case_that_breaks_is_labelled_and_the_others_go_on(bench, fault, message):
    bench.write(f"def broken():\n    {fault}\n", BROKEN, GOOD)
    result = bench.run("--passes", "1")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([message])
    assert "Traceback" not in result.stdout.str()
    assert sorted(bench.cases()) == ["bench_also_good", "bench_good"]


LATE = """
CALLS = []

def late(x, weight, out):
    CALLS.append(1)
    if len(CALLS) > 1000:
        raise RuntimeError("illegal address")
    TORCH_LINEAR.run(x, weight, out)

def bench_late(measure):
    measure(replace(TORCH_LINEAR, run=late), "decode", COLD, **SHAPE)
"""


def test_an_error_in_a_late_pass_keeps_what_was_measured_before(bench):
    bench.write(LATE, GOOD)
    bench.run("--passes", "50").assert_outcomes(passed=3)
    late, good = (bench.cases()[name]["extra_info"] for name in ("bench_late", "bench_good"))
    assert late["stopped_by"] == "error: RuntimeError: illegal address"
    assert 0 < late["passes"] < 50 == good["passes"]


def test_a_run_that_stops_at_the_first_failure_says_how_to_get_the_rest(bench):
    bench.write(WRONG, GOOD)
    result = bench.run("--passes", "1", "-x")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["2 measured cases are in no JSON; make a result file of them:", "*reports recover *"])
    assert not bench.json.exists()


def test_without_the_benchmark_plugin_nothing_breaks(bench):
    bench.write("def bench_nothing(): pass")
    fixed = ("-p", "suites.plugin", "-p", "no:benchmark", "-p", "no:cacheprovider", "bench_it.py")
    bench.pytester.runpytest_inprocess(*fixed).assert_outcomes(passed=1)


def test_what_cannot_fit_is_refused_before_it_is_tried(bench):
    huge = 'def bench_huge(measure):\n    measure(TORCH_LINEAR, "decode", COLD, tokens=10**9, n=64, k=10**4)\n'
    bench.write(huge, GOOD)
    result = bench.run("--passes", "1")
    result.assert_outcomes(passed=2, failed=1)
    # x is 1e13 elements of 4 bytes, 37252 GiB, and its float64 copy is more
    result.stdout.fnmatch_lines(["*out of memory: needs about * GiB, * GiB are free on the cpu (refused before*"])


NOT_HERE = """
def bench_elsewhere(measure):
    measure(replace(TORCH_LINEAR, archs=("sm_90",)), "decode", COLD, **SHAPE)

def bench_graph(measure):
    measure(TORCH_LINEAR, "decode", COLD._replace(launch="graph"), **SHAPE)
"""


def test_what_cannot_run_here_is_listed_with_its_reason(bench):
    bench.write(NOT_HERE, GOOD)
    result = bench.run("--passes", "1")
    result.assert_outcomes(passed=2, skipped=2)
    result.stdout.fnmatch_lines(["not run here: 1 case: *sm_90*", "not run here: 1 case: launch graph: *needs a GPU*"])
    reasons = {entry["case"].split("::")[1]: entry["reason"] for entry in bench.result()["shardbench"]["not_run"]}
    assert set(reasons) == {"bench_elsewhere", "bench_graph"}


def test_nothing_measured_is_no_success(bench):
    bench.write(NOT_HERE)
    result = bench.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["nothing was measured, so no JSON is written"])
    assert not bench.json.exists()


def test_listing_measures_nothing(bench):
    bench.write(GOOD, NOT_HERE)
    result = bench.run("--list")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*bench_good: 1.23e-05 GFLOP, 0.00934 MB", "*bench_graph: *; not here: launch graph*"])
    result.stdout.fnmatch_lines(["4 cases, 2 can run here"])
    assert not bench.json.exists()
    assert not bench.journal.exists()


def test_an_existing_result_survives_a_run_that_measures_nothing(bench):
    bench.json.write_text("precious")
    bench.write(NOT_HERE)
    bench.run()
    assert bench.json.read_text() == "precious"


def test_pytest_selects_cases_as_usual(bench):
    bench.write(GOOD)
    bench.run("--passes", "1", "-k", "also_good").assert_outcomes(passed=1, deselected=1)
    assert list(bench.cases()) == ["bench_also_good"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def bench_none(measure): pass", "*calls `measure` 0 times*"),
        ("def bench_other(measure, tmp_path): pass", "*takes `measure` and parameters, not*tmp_path*"),
    ],
)
def test_a_bench_function_of_another_form_is_refused(bench, source, message):
    bench.write(source)
    result = bench.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines([message])


def test_machine_info_reads_the_environment(monkeypatch):
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    from kernels.timing.device import current_device

    assert machine_info(current_device())["variables"]["NCCL_ALGO"] == "Ring"
