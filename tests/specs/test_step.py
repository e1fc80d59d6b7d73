"""What a file says of a step beside its samples: time a token, tokens a second, and a ledger that adds up to 1."""

import pytest

from specs import measurement
from specs.measurement import Case, Measurement

TWO_PASSES = [
    [{"linears": 0.5, "idle": 0.5}, {"linears": 0.9, "hop": 0.1}],
    [{"linears": 0.7, "idle": 0.3}, {"linears": 0.8, "hop": 0.2}],
]
"""Of two stages each."""


def measured(op="step", tokens=64, batch=64, ledgers=TWO_PASSES):
    case = Case(
        name="a", question="tp_vs_pp", op=op, implementation="torch", kernel="torch_step", dtype="bf16", flops=0,
        hbm_bytes=0, tokens=tokens, batch=batch,
    )  # fmt: skip
    return Measurement(case=case, seconds=((0.5,), (0.5,)), clock="perf_counter", ledgers=ledgers)


def test_in_decode_a_sequence_waits_a_step_for_each_token():
    info = measured().extra_info()
    # 64 tokens in half a second
    assert (info["step_seconds"], info["seconds_per_token"], info["tokens_per_second"]) == (0.5, 0.5, 128)


def test_of_a_prompt_every_token_is_read_in_a_step():
    info = measured(tokens=4 * 250, batch=4).extra_info()
    assert (info["seconds_per_token"], info["tokens_per_second"]) == (0.002, 2000)


def test_the_ledger_is_the_mean_over_passes_and_stages_and_adds_up():
    found = measured().extra_info()["ledger"]
    # linears (0.5 + 0.9 + 0.7 + 0.8) / 4, idle (0.5 + 0.3) / 4, hop (0.1 + 0.2) / 4
    assert {item: share for item, share in found.items() if share} == pytest.approx(
        {"linears": 0.725, "idle": 0.2, "hop": 0.075}
    )
    assert tuple(found) == measurement.LEDGER_ITEMS
    assert sum(found.values()) == pytest.approx(1)


def test_each_stage_and_each_pass_has_its_own():
    first, second = measurement.ledger_by_stage(TWO_PASSES)
    assert (first["linears"], second["linears"]) == (pytest.approx(0.6), pytest.approx(0.85))
    assert measurement.share_by_pass(TWO_PASSES, "linears", "hop") == pytest.approx([0.75, 0.85])


def test_other_cases_say_nothing_of_steps():
    assert "step_seconds" not in measured(op="linear").extra_info()
    assert "ledger" not in measured(ledgers=None).extra_info()


def test_a_record_with_ledgers_and_timeline_is_read_back():
    one = measured()
    timeline = {"seconds": 1.0, "blocks": [[0, "compute", 0.0, 1.0, 0, 0]]}
    told = Measurement(case=one.case, seconds=one.seconds, clock=one.clock, ledgers=TWO_PASSES, timeline=timeline)
    entry = {"fullname": "a", "extra_info": told.extra_info(), "stats": {"data": [0.5, 0.5]}}
    back = Measurement.from_benchmark(entry)
    assert (back.ledgers, measurement.timeline_blocks(back.timeline)) == (
        TWO_PASSES,
        [measurement.TimelineBlock(0, "compute", 0.0, 1.0, 0, 0)],
    )
