"""Constants are found again from runs that they made, and held-out runs do not touch them."""

from dataclasses import asdict, replace

import pytest

from reports.plan.serving import tpot_seconds, ttft_seconds
from reports.score.fit import fit_constants, fitted_record
from specs.errors import UserError
from tests.reports.score import planted_runs


@pytest.fixture(scope="module")
def found():
    return planted_runs.computed_runs()


def test_a_fit_predicts_the_runs_that_its_constants_made(found):
    constants = fit_constants(found).constants
    for one in found:
        fitted, true = constants[one.run.group], planted_runs.TRUE[one.run.group]
        assert tpot_seconds(one.features, fitted) == pytest.approx(tpot_seconds(one.features, true), rel=0.03)
        assert ttft_seconds(one.features, fitted) == pytest.approx(ttft_seconds(one.features, true), rel=0.06)


def test_the_wait_for_a_stream_is_found_and_left_out_of_predictions(found):
    group = ("trtllm", "b200_sxm", "nvfp4")
    constants = fit_constants(found).constants[group]
    assert constants.stream_steps == pytest.approx(20, abs=2)
    one = next(one for one in found if one.run.group == group and one.run.calibrates and one.run.tp == 1)
    assert ttft_seconds(one.features, constants) < 0.7e-3 * one.run.ttft_ms


def test_constants_come_near_to_the_true_ones(found):
    constants = fit_constants(found).constants[("trtllm", "b200_sxm", "nvfp4")]
    assert constants.linear_factor == pytest.approx(0.7, abs=0.02)
    assert 5e-6 < constants.skew < 9e-6  # 2e-6 without a run
    assert constants.prompt_factor == pytest.approx(1.1, abs=0.1)


def test_linears_of_a_format_that_all_tables_hold_alike_have_no_factor(found):
    assert fit_constants(found).constants[("vllm", "h100_sxm", "bf16")].linear_factor == 1.0


def test_times_of_held_out_runs_change_no_constant(found):
    held = [one for one in found if not one.run.calibrates]
    times = [(one.run.tpot_ms, one.run.ttft_ms) for one in reversed(held)]
    assert [time for time, _ in times] != [one.run.tpot_ms for one in held]
    permuted = [
        replace(one, run=replace(one.run, tpot_ms=10 * tpot, ttft_ms=ttft / 7))
        for one, (tpot, ttft) in zip(held, times, strict=True)
    ]
    calibrating = [one for one in found if one.run.calibrates]
    assert fit_constants([*calibrating, *permuted]) == fit_constants(found)
    assert fitted_record([*calibrating, *permuted], "x") == fitted_record(found, "x")


def test_a_single_run_in_an_outlying_mood_moves_little(found):
    odd = replace(found[0], run=replace(found[0].run, tpot_ms=5 * found[0].run.tpot_ms))
    constants = fit_constants([odd, *found[1:]]).constants
    one = found[-1]
    true = planted_runs.TRUE[one.run.group]
    assert tpot_seconds(one.features, constants[one.run.group]) == pytest.approx(
        tpot_seconds(one.features, true), rel=0.03
    )


def test_the_record_has_errors_and_ranges_of_every_group(found):
    record = fitted_record(found, "planted")
    assert [(one["engine"], one["gpu"], one["dtype"]) for one in record["groups"]] == sorted(planted_runs.TRUE)
    assert record["runs"] == 48
    assert record["values"] == 21
    for one in record["groups"]:
        assert one["runs"] == 24
        assert one["models"] == ["llama-3-70b"]
        assert 0 <= one["tpot_error"] < 0.02
        assert one["tpot_error"] <= one["tpot_range"] < record["elsewhere"]["tpot_range"]
        assert set(one["constants"]) == set(asdict(planted_runs.TRUE["vllm", "h100_sxm", "bf16"]))


def test_without_a_calibration_run_there_is_nothing_to_fit(found):
    with pytest.raises(UserError, match="fitted on runs with isl 1024 and osl up to 1024, and there are none"):
        fitted_record([one for one in found if not one.run.calibrates], "x")
