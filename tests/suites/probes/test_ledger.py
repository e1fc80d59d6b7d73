"""Where the time of a step goes: traces made by hand, and shares worked out beside them."""

from itertools import pairwise

import pytest

from specs.measurement import timeline_blocks
from specs.parallel import Deployment
from suites.decoder.trace import parse_trace
from suites.probes.ledger import MAX_BLOCKS
from tests.suites.probes.traces import account_rows, rank_lanes, shares, trace_message

TP2 = Deployment(tp=2)
SYNC = Deployment(pp=2, schedule="sync")
ASYNC = Deployment(pp=2, schedule="async", micro_batches=2)


def test_of_an_all_reduce_waiting_for_the_last_rank_is_skew_and_the_rest_its_own():
    # Rank 0 enters at 4, rank 1 at 6, both leave at 8; rank 1 then has 1 s of the host before its norm.
    found = account_rows(
        TP2,
        [("start", 0, 0, 0, -1), ("linears", 0, 4, 0, 0), ("all-reduce", 4, 8, 0, 0), ("norms", 8, 10, 0, 0)],
        [("start", 0, 0, 0, -1), ("linears", 0, 6, 0, 0), ("all-reduce", 6, 8, 0, 0), ("norms", 9, 10, 0, 0)],
    )
    assert found.seconds == (10,)
    # of 20 rank seconds: linears 4 + 6, norms 2 + 1, all-reduce 2 + 2, skew 2, host 1
    assert found.ledger == [shares(linears=0.5, norms=0.15, all_reduce=0.2, skew=0.1, host=0.05)]
    assert rank_lanes(found.timeline, 0) == [
        ("compute", 0, 4, 0, 0),
        ("idle", 4, 6, 0, 0),
        ("all-reduce", 6, 8, 0, 0),
        ("compute", 8, 10, 0, 0),
    ]
    assert rank_lanes(found.timeline, 1)[1:] == [("all-reduce", 6, 9, 0, 0), ("compute", 9, 10, 0, 0)]


def sync_steps(count, period=10):
    """Stage 0 computes 4 s and stage 1 5 s, and a message takes half a second each way: 10 s a step."""
    first, second = [("start", 0, 0, 0, -1)], [("start", 0, 0, 0, -1)]
    for step in range(count):
        at = period * step
        first += [("recv", at - 5, at, step, 0)] if step else []
        first += [("linears", at, at + 4, step, 0), ("send", at + 4, at + 4.25, step, 0)]
        second += [("recv", at - 0.25 if step else at, at + 4.5, step, 0), ("attention", at + 4.5, at + 9.5, step, 0)]
        second += [("send", at + 9.5, at + 9.75, step, 0)] if step < count - 1 else []
    return first, second


def test_a_receive_is_idle_until_the_message_was_sent_and_a_hop_from_there_on():
    found = account_rows(SYNC, *sync_steps(4), warm=1, steps=3)
    assert found.seconds == (10, 10, 10), "a step lasts from the end of the one before"
    # From 9.5 to 19.5, where the last stage ends. Stage 0 is sent tokens until 10, computes 4, posts for 0.25, is its
    # host's until 15 and waits for tokens that are not sent before 19.5; but the last step, where it is done at 34.25.
    # Stage 1 posts from 9.5 to 9.75, waits until 14 for what stage 0 has not computed, and to 14.5 for the message.
    assert found.ledger == [
        shares(linears=0.4, hop=0.075, idle=(4.5 + 4.5 + 5.25) / 30, host=1.5 / 30),
        shares(attention=0.5, hop=0.075, idle=0.425),
    ]
    assert found.timeline["seconds"] == 20
    assert rank_lanes(found.timeline, 0)[:4] == [
        ("hop", 0, 0.5, 1, 0),
        ("compute", 0.5, 4.5, 1, 0),
        ("hop", 4.5, 5.5, 1, 0),  # the host's time with it
        ("idle", 5.5, 10, 2, 0),
    ]


def test_a_single_request_lights_one_stage_at_a_time():
    found = account_rows(SYNC, *sync_steps(3), warm=1, steps=2)
    busy = sorted(block[2:4] for block in timeline_blocks(found.timeline) if block.kind == "compute")
    assert len(busy) == 4
    assert all(before[1] <= after[0] for before, after in pairwise(busy))


def test_a_stage_that_is_done_with_the_last_step_is_idle_until_the_others_are():
    found = account_rows(SYNC, *sync_steps(2), warm=1, steps=1)
    # In the last step nothing comes back: stage 0 is done at 14.25 of the window from 9.5 to 19.5.
    assert found.ledger[0] == shares(linears=0.4, hop=0.075, idle=0.525)
    assert rank_lanes(found.timeline, 0)[-1] == ("idle", 4.75, 10, -1, -1)


def test_two_micro_batches_in_a_closed_loop_keep_two_stages_busy():
    # Each stage computes 5 s for a slot, and hops take no time: as one slot leaves a stage the other enters it.
    first, second = [("start", 0, 0, 0, -1)], [("start", 0, 0, 0, -1)]
    for step in range(3):
        for slot in range(2):
            at = 10 * step + 5 * slot
            first += [("recv", at, at, step, slot)] if step else []
            first += [("linears", at, at + 5, step, slot), ("send", at + 5, at + 5, step, slot)]
            second += [("recv", at if not (step or slot) else at + 5, at + 5, step, slot)]
            second += [("linears", at + 5, at + 10, step, slot), ("send", at + 10, at + 10, step, slot)]
    found = account_rows(ASYNC, first, second, warm=1, steps=2)
    # A step ends with slot 1 at 15, 25 and 35; stage 0 has nothing left to do from 30 on.
    assert found.seconds == (10, 10)
    assert found.ledger == [shares(linears=0.75, idle=0.25), shares(linears=1.0)]
    undrained = account_rows(ASYNC, first, second, warm=1, steps=1, cool=1)
    assert undrained.seconds == (10,)
    assert undrained.ledger == [shares(linears=1.0), shares(linears=1.0)]


def test_a_prompt_begins_where_the_first_stage_does_however_late_another_leaves_the_barrier():
    # Stage 0 works from 1 to 3 while stage 1 is still in the barrier until 4; it then works from 4 to 6.
    first = [("start", 1, 1, 0, -1), ("linears", 1, 3, 0, 0), ("send", 3, 3, 0, 0)]
    second = [("start", 4, 4, 0, -1), ("recv", 4, 4, 0, 0), ("linears", 4, 6, 0, 0)]
    found = account_rows(SYNC, first, second, decode=False)
    assert found.seconds == (5,)
    assert found.ledger == [shares(linears=0.4, idle=0.6), shares(linears=0.4, idle=0.6)]


def test_a_stage_without_a_segment_in_a_window_is_idle_in_all_of_it():
    # Of two steps the second alone counts, from 4 to 9, and stage 0 was done before it.
    first = [("start", 0, 0, 0, -1), ("linears", 0, 1, 0, 0), ("send", 1, 1, 0, 0)]
    first += [("recv", 1, 1, 1, 0), ("linears", 1, 2, 1, 0), ("send", 2, 2, 1, 0)]
    second = [("start", 0, 0, 0, -1), ("recv", 0, 1, 0, 0), ("linears", 1, 4, 0, 0), ("send", 1, 1, 0, 0)]
    second += [("recv", 4, 4, 1, 0), ("linears", 4, 9, 1, 0)]
    second.sort(key=lambda row: row[1])
    found = account_rows(SYNC, first, second, warm=1, steps=1)
    assert found.ledger == [shares(idle=1.0), shares(linears=1.0)]


def test_a_prompts_fill_and_drain_are_idle_in_every_one_shot():
    # Two slots, 2 s each on either stage; the second run starts at 10, behind a barrier that stage 1 passed at 9.
    first, second = [], []
    for step, at in enumerate((0, 10)):
        first += [("start", at, at, step, -1)]
        second += [("start", at - step, at - step, step, -1)]
        for slot in range(2):
            begin = at + 2 * slot
            first += [("linears", begin, begin + 2, step, slot), ("send", begin + 2, begin + 2, step, slot)]
            second += [("recv", at + 0.5 if not slot else begin + 2, begin + 2, step, slot)]
            second += [("linears", begin + 2, begin + 4, step, slot)]
    found = account_rows(ASYNC, first, second, steps=2, decode=False)
    # 6 s a run: stage 0 drains from 4 to 6, stage 1 fills from 0 to 2, half a second of which it has not begun to wait.
    assert found.seconds == (6, 6)
    assert found.ledger == [shares(linears=4 / 6, idle=2 / 6)] * 2
    assert rank_lanes(found.timeline, 1)[:3] == [
        ("idle", 0, 0.5, -1, -1),
        ("idle", 0.5, 2, 0, 0),
        ("compute", 2, 4, 0, 0),
    ]
    assert rank_lanes(found.timeline, 0)[-1] == ("idle", 4, 6, -1, -1)


def test_of_replicas_the_slowest_makes_the_sample_and_the_others_are_idle_for_the_rest():
    found = account_rows(
        Deployment(replicas=2),
        [("start", 0, 0, 0, -1), ("linears", 0, 4, 0, 0), ("linears", 4, 10, 1, 0)],
        [("start", 1, 1, 0, -1), ("linears", 1, 6, 0, 0), ("linears", 6, 9, 1, 0)],
        steps=2,
    )
    # steps of 4 and 6 s on rank 0, of 5 and 3 s on rank 1: samples of 5 and 6 s
    assert found.seconds == (5, 6)
    # of 22 rank seconds: 10 + 8 computed; rank 0 lacks 1 of the first, rank 1 3 of the second
    assert found.ledger == [shares(linears=18 / 22, idle=4 / 22)]


def test_what_a_rank_does_before_its_first_segment_is_the_hosts_and_drawn_with_it():
    found = account_rows(Deployment(), [("start", 0, 0, 0, -1), ("linears", 1, 10, 0, 0)])
    assert found.ledger == [shares(linears=0.9, host=0.1)]
    assert rank_lanes(found.timeline, 0) == [("compute", 0, 10, 0, 0)]


def test_readings_that_overlap_by_the_clocks_granularity_count_once():
    rows = [("start", 0, 0, 0, -1), ("linears", 0, 5.001, 0, 0), ("norms", 5, 5.0005, 0, 0), ("norms", 5, 10, 0, 0)]
    found = account_rows(Deployment(), rows)
    assert found.ledger == [shares(linears=0.5001, norms=0.4999)]


@pytest.mark.parametrize(
    ("ranks", "reason"),
    [
        (([("linears", 0, 4, 0, 0), ("all-reduce", 4, 5, 0, 0)], [("linears", 0, 4, 0, 0)]), "rank 0 1, rank 1 0"),
        (([("linears", 0, 4, 0, 0)], [("linears", 0, 4, 1, 0)]), "ranks 0 to 1 traced more than 1 steps"),
    ],
)
def test_traces_that_do_not_fit_together_are_refused(ranks, reason):
    marked = [[("start", 0, 0, 0, -1), *rows] for rows in ranks]
    with pytest.raises(RuntimeError, match=reason):
        account_rows(TP2, *marked)


def test_a_step_that_nobody_traced_is_missed():
    rows = [("start", 0, 0, 0, -1), ("linears", 0, 4, 0, 0)]
    with pytest.raises(RuntimeError, match="ranks 0 to 1 did not trace the start and the end of 2 steps"):
        account_rows(TP2, rows, rows, steps=2)


def test_what_is_received_has_to_be_sent():
    first, second = sync_steps(2)
    with pytest.raises(RuntimeError, match="rank 1 received what rank 0 did not send: step 1, micro-batch 0"):
        account_rows(SYNC, [row for row in first if row[0] != "send" or row[3] == 0], second, steps=2)


def test_a_trace_out_of_order_is_refused():
    rows = [("start", 0, 0, 0, -1), ("norms", 5, 10, 0, 0), ("linears", 0, 5, 0, 0)]
    with pytest.raises(RuntimeError, match="rank 0 sent a trace that is not in order of time"):
        account_rows(Deployment(), rows)


def test_a_kind_that_there_is_not_is_refused():
    with pytest.raises(RuntimeError, match="rank 1 traced segments of unknown kind: sleep"):
        parse_trace(1, trace_message([("sleep", 0, 1, 0, 0)]))


def layers_of_segments(count, steps):
    """Eight ranks under TP in layers of two all-reduces, which rank 1 enters 0.1 us after rank 0, and so on."""

    def rank(number):
        rows, at = [("start", 0.0, 0.0, 0, -1)], 0.0
        for step in range(steps):
            for _ in range(2 * count):
                for kind in ("norms", "linears", "attention", "linears", "norms"):
                    rows.append((kind, at, at + 1e-5, step, 0))
                    at += 1e-5
                late = 1e-7 * number
                rows[-1] = (*rows[-1][:2], at + late, step, 0)
                rows.append(("all-reduce", at + late, at + 2e-5, step, 0))
                at += 2e-5
        return rows

    return [rank(number) for number in range(8)]


def test_eight_ranks_of_eighty_layers_are_drawn_in_few_blocks():
    found = account_rows(Deployment(tp=8), *layers_of_segments(80, 3), warm=1, steps=2)
    assert len(timeline_blocks(found.timeline)) == 8, "all-reduces are left within the compute"
    assert found.timeline["seconds"] == pytest.approx(160 * 7e-5)
    # 50 of 70 us, and on average 3.5 of the 0.1 us that each rank is later than the one before
    assert sum(found.ledger[0][item] for item in ("linears", "attention", "norms")) == pytest.approx(50.35 / 70)
    assert found.ledger[0]["skew"] == pytest.approx(0.35 / 70)


def test_many_micro_batches_are_cut_to_a_window_that_can_be_drawn():
    deployment = Deployment(pp=2, schedule="async", micro_batches=200)
    first, second = [("start", 0, 0, 0, -1)], [("start", 0, 0, 0, -1)]
    for slot in range(200):
        at = 2 * slot
        first += [("linears", at, at + 1, 0, slot), ("send", at + 1, at + 2, 0, slot)]
        second += [("recv", at, at + 2, 0, slot), ("linears", at + 2, at + 2, 0, slot)]
    second += [("norms", 400, 404, 0, 199)]
    found = account_rows(deployment, first, second)
    # of 404 s half has 2 blocks a slot on either rank, 404 together; a quarter has half of them
    assert found.timeline["seconds"] == 101
    assert len(timeline_blocks(found.timeline)) <= MAX_BLOCKS
