"""The counting that the arrival test rests on sees what it is for: planted here, where no GPU is needed."""

import torch

from kernels.operands import Workspace
from tests.gpu.arrival_protocol import Violations, offences


def planted(run, runs=10):
    scratch, out = Workspace(torch.device("cpu")), torch.zeros(4, dtype=torch.bfloat16)
    scratch.next_buffers(8, 2)
    return offences(lambda number: run(number, scratch, out), out, scratch, runs)


def test_a_right_protocol_offends_in_nothing():
    assert planted(lambda number, scratch, out: out.fill_(1)) == Violations(0, 0, 0)


def test_other_bits_in_one_run_are_seen():
    assert planted(lambda number, scratch, out: out.fill_(1.0078125 if number == 3 else 1)) == Violations(1, 0, 0)


def test_an_output_that_nobody_writes_is_seen():
    assert planted(lambda number, scratch, out: None) == Violations(0, 10, 0)


def test_a_partial_sum_that_was_read_before_it_was_written_is_seen():
    assert planted(lambda number, scratch, out: out.copy_(scratch.partials[0, :4])).unwritten == 10


def test_a_counter_that_stays_is_seen():
    assert planted(lambda number, scratch, out: (out.fill_(1), scratch.arrived[1, 1].fill_(1))).counting == 10
