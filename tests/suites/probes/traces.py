"""Traces made by hand: a rank's segments as rows of kind, start, end, step and slot."""

from itertools import pairwise

import pytest

from specs.measurement import LEDGER_ITEMS, timeline_blocks
from suites.decoder.trace import parse_trace
from suites.probes.ledger import break_down_steps


def trace_message(rows):
    """As a rank would send it."""
    names = ("kind", "start", "end", "step", "slot")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def account_rows(deployment, *ranks, warm=0, steps=1, decode=True, cool=0):
    """The account of these rows, with all that holds of any account."""
    traces = [parse_trace(rank, trace_message(rows)) for rank, rows in enumerate(ranks)]
    found = break_down_steps(deployment, traces, warm=warm, steps=steps, decode=decode, cool=cool)
    for stage in found.ledger:
        assert sum(stage.values()) == pytest.approx(1, abs=1e-9)
    assert_blocks_fill(found.timeline, deployment.ranks)
    return found


def assert_blocks_fill(timeline, ranks):
    """Each rank's blocks follow one another through the whole window."""
    for rank in range(ranks):
        own = [block for block in timeline_blocks(timeline) if block.rank == rank]
        assert own[0].start == 0
        assert own[-1].end == pytest.approx(timeline["seconds"], abs=1e-9)
        assert all(a.end == b.start and a.start < a.end for a, b in pairwise(own))


def shares(**spent):
    """A stage's ledger: what is not named took no time."""
    return pytest.approx(
        dict.fromkeys(LEDGER_ITEMS, 0.0) | {name.replace("_", "-"): share for name, share in spent.items()}
    )


def rank_lanes(timeline, rank):
    """A rank's blocks in short."""
    return [
        (one.kind, one.start, one.end, one.step, one.microbatch)
        for one in timeline_blocks(timeline)
        if one.rank == rank
    ]
