import json
from dataclasses import replace

import pytest

from specs.errors import UserError
from specs.measurement import Case, Measurement

CASE = Case(
    name="suites/bench_decode.py::bench_linear[llama-3-70b-qkv-tp8-1]",
    question="decode",
    op="linear",
    implementation="torch",
    kernel="torch_linear",
    dtype="bf16",
    flops=4_000_000,
    hbm_bytes=2_000_000,
    model="llama-3-70b",
    layer="qkv",
    tp=8,
    pp=1,
    tokens=1,
    n=1280,
    k=8192,
)
MEASURED = Measurement(
    case=CASE,
    seconds=((1e-6, 2e-6), (3e-6,), (2e-6, 2e-6, 4e-6)),
    clock="cuda_event",
    relative_error=1e-3,
    copies=6,
    calls=100,
    stopped_by="precision",
    throttled=False,
    telemetry={"sm_clock_mhz": 1980.0},
)


def _entry(measurement):
    info = measurement.extra_info()
    entry = {"fullname": measurement.case.name, "extra_info": info, "stats": {"data": list(measurement.samples)}}
    return json.loads(json.dumps(entry, allow_nan=False))


def test_a_measurement_survives_the_result_file():
    assert Measurement.from_benchmark(_entry(MEASURED)) == MEASURED


def test_a_choice_survives_and_stays_out_of_files_of_kernels_that_have_none():
    chosen = replace(MEASURED, configuration="rows 128 depth 64 (static model)")
    assert Measurement.from_benchmark(_entry(chosen)) == chosen
    assert _entry(chosen)["extra_info"]["configuration"] == "rows 128 depth 64 (static model)"
    assert "configuration" not in MEASURED.extra_info()
    assert Measurement.from_benchmark(_entry(MEASURED)).configuration is None


def test_a_single_pass_survives_too():
    single = replace(MEASURED, seconds=((1e-6, 2e-6),), relative_error=None, telemetry=None, throttled=None)
    assert single.interval is None
    assert single.extra_info()["interval_seconds"] is None
    assert Measurement.from_benchmark(_entry(single)) == single


def test_what_is_derived():
    assert MEASURED.samples == (1e-6, 2e-6, 3e-6, 2e-6, 2e-6, 4e-6)
    assert MEASURED.median == 2e-6  # of 1, 2, 2, 2, 3, 4
    assert MEASURED.bytes_per_second == pytest.approx(1e12)  # 2e6 / 2e-6
    assert MEASURED.flops_per_second == pytest.approx(2e12)  # 4e6 / 2e-6
    info = MEASURED.extra_info()
    assert (info["passes"], info["pass_rounds"]) == (3, [2, 1, 3])
    assert info["interval_seconds"][0] < 2e-6 < info["interval_seconds"][1]
    assert info["noise"] == pytest.approx(1.5)  # of 1, 2, 2, 2, 3, 4 the ranks 0 and 5: (4 − 1) / 2


def test_samples_stay_out_of_extra_info():
    assert not {"seconds", "case", "data"} & set(MEASURED.extra_info())


def test_without_passes_all_samples_are_one():
    entry = _entry(MEASURED)
    del entry["extra_info"]["pass_rounds"]
    assert Measurement.from_benchmark(entry).seconds == (MEASURED.samples,)


def test_a_file_that_names_no_clock_is_read_as_unknown():
    entry = _entry(MEASURED)
    del entry["extra_info"]["clock"]
    assert Measurement.from_benchmark(entry).clock == "unknown"


def test_fields_of_a_newer_file_are_passed_over():
    entry = _entry(MEASURED)
    entry["extra_info"]["invented_later"] = 1
    assert Measurement.from_benchmark(entry) == MEASURED


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"fullname": "other", "extra_info": {}, "stats": {"data": [1.0]}},
        {"fullname": "other", "extra_info": None, "stats": {"data": [1.0]}},
    ],
)
def test_a_benchmark_of_another_project_is_refused(entry):
    with pytest.raises(UserError, match="not a shardbench case"):
        Measurement.from_benchmark(entry)


@pytest.mark.parametrize(
    ("data", "rounds"),
    [
        ([1e-6, 2e-6], [2, 1]),
        ([1e-6, 2e-6], [2, 0]),
        ([1e-6, 2e-6, 3e-6], [4, -1]),
        ([], None),
    ],
)
def test_samples_that_do_not_fill_their_passes_are_refused(data, rounds):
    entry = _entry(MEASURED)
    entry["stats"]["data"], entry["extra_info"]["pass_rounds"] = data, rounds
    with pytest.raises(UserError, match="do not fill passes of"):
        Measurement.from_benchmark(entry)


@pytest.mark.parametrize("sample", [0.0, -1e-6, float("nan"), float("inf")])
def test_samples_that_are_no_times_are_refused(sample):
    entry = _entry(MEASURED)
    entry["stats"]["data"], entry["extra_info"]["pass_rounds"] = [1e-6, sample], [1, 1]
    with pytest.raises(UserError, match="not a positive number of seconds"):
        Measurement.from_benchmark(entry)


@pytest.mark.parametrize("rounds", [["a"], 3, [None]])
def test_pass_rounds_of_another_form_are_refused(rounds):
    entry = _entry(MEASURED)
    entry["extra_info"]["pass_rounds"] = rounds
    with pytest.raises(UserError, match="not a shardbench case"):
        Measurement.from_benchmark(entry)


@pytest.mark.parametrize("data", [None, ["fast"], [None]])
def test_samples_that_are_no_numbers_are_refused(data):
    entry = _entry(MEASURED)
    entry["stats"]["data"] = data
    with pytest.raises(UserError, match="not a shardbench case"):
        Measurement.from_benchmark(entry)


def test_the_format_of_a_kv_cache_is_written_where_it_differs():
    assert "kv_dtype" not in MEASURED.extra_info()
    mixed = replace(MEASURED, case=replace(CASE, kv_dtype="fp8"))
    assert Measurement.from_benchmark(_entry(mixed)).case.kv_dtype == "fp8"
    assert Measurement.from_benchmark(_entry(MEASURED)).case.kv_dtype is None
