import re
from pathlib import Path

import pytest

from specs import traffic
from specs.errors import UserError

PAGE = (Path(__file__).parents[2] / "docs" / "busbw.md").read_text()
MESSAGE, SECONDS = 2**24, 100e-6  # the page's: 16 MiB in 100 us

# factors by hand: 2(n−1)/n, (n−1)/n and 1 for 2, 4 and 8 ranks
FACTORS = {
    "all_reduce": (1, 1.5, 1.75),
    "all_gather": (0.5, 0.75, 0.875),
    "reduce_scatter": (0.5, 0.75, 0.875),
    "broadcast": (1, 1, 1),
    "send_recv": (1, 1, 1),
    "exchange": (1, 1, 1),
    "ring_shift": (1, 1, 1),
    "peer_copy": (1, 1, 1),
}
# by hand: 16,777,216 B / 100 us = 167.77216 GB/s, times the factor
GIGABYTES = {"all_reduce": (167.77, 251.66, 293.60), "all_gather": (83.89, 125.83, 146.80), "broadcast": (167.77,) * 3}


@pytest.mark.parametrize("op", FACTORS)
def test_busbw_is_algbw_times_the_factor(op):
    for ranks, factor in zip((2, 4, 8), FACTORS[op], strict=True):
        assert traffic.algbw(op, 1000, 0.5) == 2000
        assert traffic.busbw(op, ranks, 1000, 0.5) == 2000 * factor


@pytest.mark.parametrize("op", FACTORS)
def test_a_ring_sends_just_factor_times_message(op):
    for ranks, factor in zip((2, 4, 8), FACTORS[op], strict=True):
        assert traffic.bytes_sent_per_rank(op, ranks, 8000) == 8000 * factor


def test_a_ping_pong_is_two_messages_in_turn():
    assert traffic.algbw("ping_pong", 1000, 0.5) == 4000
    assert traffic.busbw("ping_pong", 8, 1000, 0.5) == 4000
    assert traffic.bytes_sent_per_rank("ping_pong", 8, 1000) == 1000


def test_a_time_that_holds_more_than_the_transfer_has_no_bandwidth():
    assert traffic.algbw("all_reduce_rmsnorm", 1000, 0.5) is None
    assert traffic.busbw("all_reduce_rmsnorm", 8, 1000, 0.5) is None
    assert traffic.bytes_sent_per_rank("all_reduce_rmsnorm", 8, 1000) == 1750  # 2·7/8·1000: the bytes are known


def test_what_is_no_operation_between_ranks_has_none():
    assert traffic.algbw("linear", 1000, 0.5) is None
    with pytest.raises(UserError, match="unknown collective 'all_redcue'; did you mean all_reduce"):
        traffic.bytes_sent_per_rank("all_redcue", 8, 1000)


def test_the_page_derives_every_operation():
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert set(traffic.TRAFFIC) <= named
    assert set(traffic.TRAFFIC) == {*FACTORS, "ping_pong", "all_reduce_rmsnorm"}


@pytest.mark.parametrize(
    ("row", "ops"),
    [
        ("all-reduce", ("all_reduce",)),
        ("all-gather, reduce-scatter", ("all_gather", "reduce_scatter")),
        ("broadcast, send", ("broadcast", "send_recv")),
    ],
)
def test_the_table_by_hand_is_right_and_what_specs_say(row, ops):
    (cells,) = re.findall(rf"^\| {row} \| (.*) \|$", PAGE, re.MULTILINE)
    written = [tuple(map(float, re.findall(r"[\d.]+", cell))) for cell in cells.split("|")]
    assert written == list(zip(FACTORS[ops[0]], GIGABYTES[ops[0]], strict=True))
    for op in ops:
        for ranks, (factor, gigabytes) in zip((2, 4, 8), written, strict=True):
            assert traffic.busbw(op, ranks, MESSAGE, SECONDS) / traffic.algbw(op, MESSAGE, SECONDS) == factor
            assert round(traffic.busbw(op, ranks, MESSAGE, SECONDS) / 1e9, 2) == gigabytes


def test_the_other_figures_of_the_page():
    for figure in ("167.77 GB/s", "29,360,128 bytes", "65.2 us", "65 %", "335.54 GB/s", "1.125 S", "1.56 times"):
        assert figure in " ".join(PAGE.split()), figure
    assert traffic.bytes_sent_per_rank("all_reduce", 8, MESSAGE) == 29_360_128
    assert round(29_360_128 / 450e9 * 1e6, 1) == 65.2
    assert round(traffic.busbw("all_reduce", 8, MESSAGE, SECONDS) / 450e9, 2) == 0.65
    assert round(traffic.algbw("ping_pong", MESSAGE, SECONDS) / 1e9, 2) == 335.54
    assert (8 + 1) / 8 == 1.125
    assert round(1.75 / 1.125, 2) == 1.56
