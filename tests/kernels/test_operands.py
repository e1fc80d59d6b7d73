"""The ring of scratch memory: zeroed counters, two turns apart, grown without moving what graphs hold."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from kernels.configs.config import LinearConfig
from kernels.operands import RING_LENGTH, Workspace, shared_workspace
from specs.errors import UserError

CPU = torch.device("cpu")


def test_turns_take_separate_memory_and_come_round():
    scratch = Workspace(CPU)
    turns = [scratch.next_buffers(64, 8) for _ in range(RING_LENGTH + 1)]
    for ours, theirs, again in zip(*turns, strict=True):
        ours.fill_(1)
        theirs.fill_(2)
        assert set(ours.tolist()) == {1}  # nothing of it was overwritten
        assert again.data_ptr() == ours.data_ptr() != theirs.data_ptr()


def test_counters_start_at_zero_and_so_do_those_of_a_larger_call():
    scratch = Workspace(CPU)
    assert scratch.next_buffers(1, 1000)[1].count_nonzero() == 0
    assert scratch.next_buffers(1, 10_000)[1].count_nonzero() == 0
    assert scratch.arrived.shape[0] == RING_LENGTH


def test_a_call_gets_at_least_what_it_asks_for_in_the_right_types():
    scratch = Workspace(CPU)
    for partials, counters in ((0, 1), (100, 3), (50, 7), (200, 2)):
        ours, arrived = scratch.next_buffers(partials, counters)
        assert ours.numel() >= partials
        assert arrived.numel() >= counters
        assert (ours.dtype, arrived.dtype) == (torch.float32, torch.int32)


def test_a_smaller_call_gets_the_same_memory():
    scratch = Workspace(CPU)
    large = [scratch.next_buffers(1000, 100) for _ in range(RING_LENGTH)]
    small = [scratch.next_buffers(10, 1) for _ in range(RING_LENGTH)]
    assert [part.data_ptr() for turn in small for part in turn] == [part.data_ptr() for turn in large for part in turn]


def test_memory_that_a_captured_graph_writes_to_outlives_a_larger_call():
    scratch = Workspace(CPU)
    memory = [StorageWeakRef(part.untyped_storage()) for part in scratch.next_buffers(64, 8)]
    scratch.next_buffers(2**20, 2**16)
    assert not any(one.expired() for one in memory)


@pytest.mark.parametrize(
    "config", [LinearConfig(2, 1, 1024, 3, 4, 1, matrix=False), LinearConfig(64, 16, 64, 3, 4, 4)], ids=str
)
def test_every_turn_starts_where_compiled_code_may_load_16_bytes(config):
    """Else a launch on the second turn compiles another form: in the middle of a capture, and with narrow stores."""
    scratch = Workspace(CPU)
    for n in (330, 6, 4098):
        turns = [scratch.next_buffers(config.partial_elements(n), -(-n // config.rows)) for _ in range(RING_LENGTH)]
        assert {part.data_ptr() % 16 for turn in turns for part in turn} == {0}


def test_calls_on_a_device_share_one_unless_they_bring_their_own():
    assert shared_workspace(CPU) is shared_workspace(torch.device("cpu"))
    assert Workspace(CPU) is not shared_workspace(CPU)


def test_room_is_not_made_while_a_graph_is_captured(monkeypatch):
    """Zeros that a graph sets would be there only while it is replayed."""
    space = Workspace(torch.device("cpu"))
    space.next_buffers(100, 10)
    space._device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    space.next_buffers(100, 10)
    with pytest.raises(UserError, match="call it once before the capture"):
        space.next_buffers(1000, 10)
    with pytest.raises(UserError, match="call it once before the capture"):
        space.next_buffers(100, 1000)
