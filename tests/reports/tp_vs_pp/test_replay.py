"""Measured timelines against the event model, and against models that get one thing wrong."""

import random
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest

from reports import pipeline_model
from reports.results import deployment_of, load
from reports.tp_vs_pp.validation import read_timeline, replay
from specs.parallel import Deployment
from tests.reports import longest_path
from tests.reports.tp_vs_pp.planted_steps import ASYNC, SYNC, TP2, step

DATA = Path(__file__).parents[3] / "reports/data/amd-epyc-2-threads-2026-11-24-74a7782.json"
DECODE, PREFILL = 0.001, 0.003
"""By how much the model may miss a measured step. A prefill's may be more: there a stage took longer to send a message
than the next one to receive it, which a message that leaves at the end of a turn cannot."""


@pytest.fixture(scope="module")
def walks():
    """What was measured in stages, by schedule and prompt."""
    found = {}
    for one in load(DATA).measurements:
        if one.case.op == "step" and one.case.pp > 1:
            found.setdefault((deployment_of(one).schedule, one.case.tokens > one.case.batch), {})[one.case.tokens] = one
    return found


def relative_error(walk, seconds):
    return abs(seconds / walk.seconds - 1)


def test_the_model_meets_every_measured_step_in_stages(walks):
    assert {kind: list(found) for kind, found in walks.items()} == {
        ("sync", False): [1, 4, 16, 64, 256, 1024],
        ("async", False): [4, 16, 64, 256, 1024],
        ("sync", True): [128, 256],
        ("async", True): [128, 256],
    }
    for (_, prompts), found in walks.items():
        for one in found.values():
            measured, modelled = replay(one)
            assert modelled == pytest.approx(measured, rel=PREFILL if prompts else DECODE), one.case.name


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_a_model_without_hops_misses_the_steps_of_a_single_micro_batch(walks, batch):
    walk = read_timeline(walks["sync", False][batch])
    assert relative_error(walk, pipeline_model.decode_step_seconds(walk.busy, [[0.0]] * 2)) > DECODE


def test_a_model_whose_loop_is_open_misses_the_steps_of_a_single_micro_batch(walks):
    for one in walks["sync", False].values():
        walk = read_timeline(one)
        assert relative_error(walk, max(map(sum, walk.busy))) > 100 * DECODE


@pytest.mark.parametrize("prompts", [False, True])
def test_a_model_that_serves_micro_batches_out_of_order_misses_the_steps_of_several(walks, prompts):
    for one in walks["async", prompts].values():
        walk, orders = read_timeline(one), [[0, 1], [1, 0]]
        if prompts:
            seconds = longest_path.ends(walk.busy, walk.hop, 1, orders)[0][-1][0]
        else:
            seconds = longest_path.period(walk.busy, walk.hop, orders)
        assert relative_error(walk, seconds) > 20 * PREFILL


def timeline(seconds, *blocks):
    """In ms: rank, kind, end, step, slot; each begins where the rank's one before ended."""
    rows, reached = [], {}
    for rank, kind, end, turn, slot in blocks:
        rows.append([rank, kind, reached.get(rank, 0.0) / 1e3, end / 1e3, turn, slot])
        reached[rank] = end
    return {"seconds": seconds / 1e3, "blocks": rows}


LOOP = timeline(
    9.2,
    *((0, "idle", 0.1, 1, 1), (0, "hop", 0.8, 1, 1), (0, "compute", 2.8, 1, 1), (0, "hop", 3.3, 1, 1)),
    *((0, "idle", 4.7, 2, 0), (0, "hop", 5.5, 2, 0), (0, "compute", 7.5, 2, 0), (0, "hop", 8.0, 2, 0)),
    (0, "idle", 9.2, 2, 1),
    *((1, "compute", 0.1, 0, 1), (1, "hop", 0.6, 0, 1)),
    *((1, "compute", 4.7, 1, 0), (1, "hop", 5.2, 1, 0), (1, "compute", 9.2, 1, 1)),
)
"""One step of decode; what stage 1 computed of the step before hangs over into it."""
PROMPTS = timeline(
    8.92,
    *((0, "compute", 2.1, 0, 0), (0, "hop", 2.6, 0, 0)),
    *((0, "compute", 4.6, 0, 1), (0, "hop", 5.1, 0, 1), (0, "idle", 8.92, -1, -1)),
    *((1, "idle", 0.2, -1, -1), (1, "idle", 2.1, 0, 0), (1, "hop", 2.9, 0, 0), (1, "compute", 5.9, 0, 0)),
    *((1, "hop", 5.92, 0, 1), (1, "compute", 8.92, 0, 1)),
)


def approx_table(table):
    """In ms."""
    return [pytest.approx([one / 1e3 for one in row]) for row in table]


def test_turns_and_messages_of_decode_are_read_from_its_blocks():
    """Stage 0 waited for both tokens: from 0.6 to 0.8 and from 5.2 to 5.5. Stage 1 never did, so messages to it are 0.

    Its turns are 4.1 and 4.0 and 0.5 to send, that of slot 1 as the step before shows it; two of them are the pace.
    """
    found = step(ASYNC, batch=4, timeline=LOOP)
    walk = read_timeline(found)
    assert walk.busy == approx_table([[2.5, 2.5], [4.6, 4.5]])
    assert walk.hop == approx_table([[0.0, 0.0], [0.3, 0.2]])
    assert replay(found) == pytest.approx((9.2e-3, 9.1e-3))


def test_turns_and_messages_of_prompts_are_read_from_their_blocks():
    """Stage 1 waited from 2.6 to 2.9, then took in the second message, which was there: 2.6 + 0.3 + 3 + 0.02 + 3."""
    found = step(ASYNC, batch=2, prompt=32, timeline=PROMPTS)
    walk = read_timeline(found)
    assert walk.busy == approx_table([[2.6, 2.5], [3.0, 3.02]])
    assert walk.hop == approx_table([[0.3, 0.0], [0.0, 0.0]])
    assert replay(found) == pytest.approx((8.92e-3, 8.92e-3))


def test_all_reduces_within_a_stage_and_waiting_for_them_are_part_of_its_turns():
    """Of ranks 0 and 1, and 2 and 3; the first of each stage speaks for it: 3 + 0.5, 0.25, 4 + 0.5 and 0.25."""
    laid = Deployment(tp=2, pp=2, schedule="sync")
    first = ("compute", 1.75), ("idle", 2.25), ("all-reduce", 2.75), ("compute", 3.75), ("hop", 4.25)
    last = ("idle", 3.75, 1), ("hop", 4.5, 1), ("compute", 6.5, 1), ("all-reduce", 8.5, 1)
    blocks = [(rank, kind, end, 1, 0) for rank in (0, 1) for kind, end in (("hop", 0.75), *first)]
    blocks += [(rank, "idle", 8.5, -1, -1) for rank in (0, 1)]
    blocks += [(rank, *block, 0) for rank in (2, 3) for block in (("compute", 0.1, 0), ("hop", 0.5, 0), *last)]
    walk = read_timeline(step(laid, timeline=timeline(8.5, *blocks)))
    assert walk.busy == approx_table([[3.5], [4.4]])
    assert walk.hop == approx_table([[0.25], [0.25]])
    assert pipeline_model.decode_step_seconds(walk.busy, walk.hop) == pytest.approx(8.4e-3)


SEND, WARM = 2, 60


def observed_timeline(busy, hop, steps):
    """What a timeline shows of decode: so many steps, and of others what goes on meanwhile."""
    held = [[one + SEND for one in row] for row in busy]
    walk, rows = longest_path.ends(held, hop, WARM + steps + 3), []
    low, high = (walk[of][-1][-1] - SEND for of in (WARM, WARM + steps))
    for stage, row in enumerate(held):
        reached = 0
        for of, slot in product(range(len(walk)), range(len(row))):
            end, sent = walk[of][stage][slot], walk[of - (stage == 0)][stage - 1][slot] if of or stage else 0
            turn = reached, min(max(reached, sent), end - row[slot]), end - row[slot], end - SEND, end
            edges = pairwise(min(max(edge, low), high) - low for edge in turn)
            blocks = zip(("idle", "hop", "compute", "hop"), edges, strict=True)
            rows += [[stage, kind, *times, of, slot] for kind, times in blocks if times[0] < times[1]]
            reached = end
    return {"seconds": high - low, "blocks": rows}


@pytest.mark.parametrize(("steps", "least"), [(1, 30), (2, 140)])
def test_the_tables_that_a_timeline_came_from_are_found_in_it_again(steps, least):
    """Up to the hops of messages that came in time. A single step may lack the turn or the message that is wanted."""
    draw, found = random.Random(8), 0
    for _ in range(150):
        stages, slots = draw.randint(2, 4), draw.randint(1, 6)
        busy = [[draw.randint(1, 10) for _ in range(slots)] for _ in range(stages)]
        hop = [[draw.randint(0, draw.choice((0, 25))) for _ in range(slots)] for _ in range(stages)]
        laid = Deployment(pp=stages, schedule="async", micro_batches=slots)
        if walk := read_timeline(step(laid, batch=slots, timeline=observed_timeline(busy, hop, steps))):
            found += 1
            held = [[one + SEND for one in row] for row in busy]
            assert walk.busy == held
            assert all(
                hop[stage][slot] == one for stage, row in enumerate(walk.hop) for slot, one in enumerate(row) if one
            )
            assert pipeline_model.decode_step_seconds(walk.busy, walk.hop) == pytest.approx(
                pipeline_model.decode_step_seconds(held, hop)
            )
    assert found >= least


@pytest.mark.parametrize(
    "one",
    [
        step(ASYNC, batch=4),
        step(TP2, timeline=timeline(1.0, (0, "compute", 1.0, 0, 0), (1, "compute", 1.0, 0, 0))),
        step(replace(ASYNC, replicas=2), batch=4, timeline=LOOP),
        step(replace(ASYNC, micro_batches=3), batch=4, timeline=LOOP),
        step(SYNC, timeline=timeline(1.0, (0, "compute", 1.0, 0, 0), (1, "idle", 1.0, 0, 0))),
    ],
    ids=["no timeline", "one stage", "replicas", "a slot that is not in it", "half a step"],
)
def test_what_no_pipeline_was_seen_in_is_not_replayed(one):
    assert replay(one) is None


def test_a_sender_that_is_held_up_after_its_message_is_there_holds_up_nobody():
    # two steps of 20 ms: 9 ms of compute and 1 ms of a message on each stage; the last stage's sends take 5 and 7 ms
    blocks = [
        *((0, "hop", 0, 1, 1, 0), (0, "compute", 1, 10, 1, 0), (0, "hop", 10, 11, 1, 0), (0, "idle", 11, 21, 2, 0)),
        *((0, "compute", 21, 30, 2, 0), (0, "hop", 30, 31, 2, 0), (0, "idle", 31, 40, -1, -1)),
        *((1, "hop", 0, 5, 0, 0), (1, "idle", 5, 11, 1, 0), (1, "compute", 11, 20, 1, 0), (1, "hop", 20, 27, 1, 0)),
        *((1, "idle", 27, 31, 2, 0), (1, "compute", 31, 40, 2, 0)),
    ]
    rows = [[rank, kind, start / 1e3, end / 1e3, turn, slot] for rank, kind, start, end, turn, slot in blocks]
    held_up = step(SYNC, 20.0, timeline={"seconds": 0.04, "blocks": rows})
    assert replay(held_up) == pytest.approx((0.02, 0.02))
