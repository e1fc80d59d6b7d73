"""Messages that any rank can predict: distinct, never zero, and exact when added up."""

import pytest
import torch

from comm.collective import TABLE_LENGTH, Role, fill_buffer, max_value, message_values, relative_error
from comm.collectives import COLLECTIVES

INDEX = torch.arange(3 * TABLE_LENGTH // 2)


@pytest.mark.parametrize("ranks", [2, 3, 8, 126])
def test_sums_over_all_ranks_and_the_residual_are_exact_in_bf16_in_any_order(ranks):
    assert max_value(ranks) * (ranks + 1) <= 127 or max_value(ranks) == 1
    value = message_values(ranks, 5)
    forward, backward = torch.zeros(1000, dtype=torch.bfloat16), torch.zeros(1000, dtype=torch.bfloat16)
    for rank in range(ranks):
        forward += value(rank, INDEX[:1000]).bfloat16()
    for rank in reversed(range(ranks)):
        backward += value(rank, INDEX[:1000]).bfloat16()
    exact = sum(value(rank, INDEX[:1000]).double() for rank in range(ranks))
    assert torch.equal(forward.double(), exact)
    assert torch.equal(backward.double(), exact)


def test_no_value_is_zero_and_no_two_ranks_or_rounds_agree():
    value, later = message_values(4, 1), message_values(4, 2)
    rows = torch.stack([value(rank, INDEX[:4096]) for rank in range(-2, 4)] + [later(0, INDEX[:4096])])
    assert (rows != 0).all()
    same = (rows[:, None] == rows[None]).float().mean(-1)
    assert same.fill_diagonal_(0).max() < 0.2


def test_a_part_at_a_wrong_place_does_not_agree():
    value = message_values(2, 0)
    for shift in (1, 2, 64, 1024, 2**16, 2**20):
        assert (value(0, INDEX[:4096]) == value(0, INDEX[:4096] + shift)).float().mean() < 0.2


@pytest.mark.parametrize("size", [1, 100, TABLE_LENGTH, TABLE_LENGTH + 7, 3 * TABLE_LENGTH + 1])
def test_filling_writes_what_the_formula_says(size):
    buffer = torch.empty(size)
    fill_buffer(buffer, message_values(2, 3), 1)
    assert torch.equal(buffer, message_values(2, 3)(1, torch.arange(size)))


def test_a_result_has_no_value_until_it_is_written():
    buffer = torch.zeros(10)
    fill_buffer(buffer, message_values(2, 3), None)
    assert buffer.isnan().all()


@pytest.fixture
def reduced():
    """A right all-reduce of two ranks as rank 0 sees it."""
    role, value = Role(0, 2, 2**20 + 3, 1), message_values(2, 9)
    index = torch.arange(role.elements)
    return role, value, {"out": (value(0, index) + value(1, index)).bfloat16()}


def test_a_right_result_has_no_error_at_all(reduced):
    role, value, buffers = reduced
    assert relative_error(COLLECTIVES["all_reduce"], buffers, value, role) == 0.0


@pytest.mark.parametrize("place", [0, 2**20, 2**20 + 2])
def test_one_wrong_element_is_an_error_and_one_unwritten_is_nan(reduced, place):
    role, value, buffers = reduced
    buffers["out"][place] += 1
    assert relative_error(COLLECTIVES["all_reduce"], buffers, value, role) > 0
    buffers["out"][place] = float("nan")
    assert relative_error(COLLECTIVES["all_reduce"], buffers, value, role) != 0


def test_the_message_of_an_earlier_round_is_wrong(reduced):
    role, _, buffers = reduced
    assert relative_error(COLLECTIVES["all_reduce"], buffers, message_values(2, 10), role) > 0.5


def test_a_rank_that_is_given_nothing_has_no_error():
    role = Role(2, 3, 8, 1, source=0, target=1)
    assert relative_error(COLLECTIVES["send_recv"], {}, message_values(3, 0), role) is None
