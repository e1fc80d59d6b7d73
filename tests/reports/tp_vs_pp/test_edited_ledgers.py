"""Ledgers and timelines that cannot be true are refused in one line, and files from before there were any are read."""

import json

import pytest

from reports.results import load
from specs.errors import UserError
from tests.reports import planted
from tests.reports.tp_vs_pp.planted_steps import ASYNC, TP2, simulated_timeline, step


@pytest.fixture
def edited(tmp_path):
    """A step in two stages, with one change to what stands beside its samples; what is said of it."""

    def edited(change):
        one = step(ASYNC, batch=4, passes=2, timeline=simulated_timeline(ASYNC, 2, 1e-3, 1e-4))
        content = planted.content([one])
        change(content["benchmarks"][0]["extra_info"])
        path = tmp_path / "x.json"
        path.write_text(json.dumps(content))
        with pytest.raises(UserError) as caught:
            load(path)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{path}: suites/bench_tp_vs_pp.py::bench_step[pp2-async2-b4-p1-ctx128]: ")
        assert message.endswith("; the file was edited")
        return message

    return edited


def set_share(item, value):
    return lambda info: info["ledgers"][1][0].update({item: value})


def set_block(place, value):
    return lambda info: info["timeline"]["blocks"][3].__setitem__(place, value)


def set_case_field(**changes):
    return lambda info: info.update(changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_case_field(ledgers="all"), "ledgers are not one for each of its 2 passes"),
        (set_case_field(ledgers=[]), "ledgers are not one for each of its 2 passes"),
        (lambda info: info["ledgers"].pop(), "ledgers are not one for each of its 2 passes"),
        (lambda info: info["ledgers"][1].pop(), "a ledger is not one for each of its 2 stages"),
        (lambda info: info["ledgers"][0].__setitem__(1, [0.5, 0.5]), "a ledger is '[0.5, 0.5]', not shares by item"),
        (set_share("coffee", 0.0), "a ledger has the item 'coffee'; known: linears, attention,"),
        (set_share("linears", 0.502), "the shares of a ledger add up to 1.002, not 1"),
        (set_share("linears", -0.1), "the share of linears is -0.1, not a share"),
        (set_share("linears", "half"), "the share of linears is half, not a share"),
        (set_share("linears", True), "the share of linears is True, not a share"),
        (set_case_field(timeline=[1]), "a timeline is not a window in seconds with its blocks"),
        (
            set_case_field(timeline={"seconds": 0, "blocks": []}),
            "a timeline is not a window in seconds with its blocks",
        ),
        (set_case_field(timeline={"seconds": 1.0}), "a timeline is not a window in seconds with its blocks"),
        (lambda info: info["timeline"]["blocks"][3].pop(), "not rank, kind, start, end, step, slot"),
        (set_block(1, "lunch"), "a block of a timeline is of kind 'lunch'; known: compute, all-reduce, hop, idle"),
        (set_block(0, 2), "a block of a timeline is of rank 2, and there are 2 ranks"),
        (set_block(0, -1), "a block of a timeline is of rank -1"),
        (set_block(0, "0"), "rank, step and slot of a block are '0', 0 and 0, not whole numbers"),
        (set_block(3, 0.0), "a block of a timeline lasts from 0.0011 to 0.0 s"),
        (set_block(3, 9.0), "a block of a timeline lies from 0.0011 to 9 s, outside its window of 0.0055 s"),
        (lambda info: info["timeline"]["blocks"].pop(), "do not fill its timeline of 0.0055 s one after another"),
        (lambda info: info["timeline"]["blocks"].append(info["timeline"]["blocks"][-1]), "do not fill its timeline"),
        (lambda info: info["timeline"]["blocks"].clear(), "the blocks of rank 0 do not fill its timeline"),
        (set_case_field(vocab=-1), "a step of less than one layer, rank, micro-batch, sequence or token"),
        (set_case_field(tp=2), "tp 2 x pp 2 x replicas 1 is 4 ranks and this run has 2"),
        (set_case_field(schedule="waltz"), "schedule waltz with pp 2"),
        (set_case_field(micro_batches=8), "8 micro-batches of 4 sequences a replica"),
        (set_case_field(layers=None), "a step without layers"),
        (set_case_field(batch=-4), "a step of less than one layer, rank, micro-batch, sequence or token"),
        (set_case_field(tokens=6), "6 tokens do not divide over a batch of 4"),
        (set_case_field(op="linear"), "ledgers and timelines are of a step, and this is a linear"),
    ],
)
def test_what_cannot_be_true_is_refused(edited, change, said):
    assert said in edited(change)


def test_shares_that_were_rounded_are_taken(tmp_path):
    """1.0004 is within a thousandth."""
    rounded = {"linears": 0.8004, "hop": 0.2}
    path = planted.write(tmp_path / "x.json", [step(TP2, shares=rounded)])
    assert load(path).measurements[0].ledgers == [[rounded]] * 6


def test_what_was_written_is_read_again(tmp_path):
    one = step(ASYNC, batch=4, timeline=simulated_timeline(ASYNC, 2, 1e-3, 1e-4))
    assert load(planted.write(tmp_path / "x.json", [one])).measurements == (one,)


def test_a_file_from_before_there_were_steps_is_read(tmp_path):
    content = planted.content([planted.measured(planted.case(), 1.0)])
    info = content["benchmarks"][0]["extra_info"]
    for name in ("replicas", "schedule", "micro_batches", "partition", "layers", "vocab", "backend", "batch"):
        del info[name]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    (one,) = load(path).measurements
    assert (one.ledgers, one.timeline, one.case.schedule) == (None, None, None)
