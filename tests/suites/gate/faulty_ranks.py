"""Ranks that are wrong, hang, die or fault: each is started in the place of a sound one, in a process of its own."""

import os
import time
from dataclasses import replace

from comm.backends.torch_distributed import GLOO, TorchCommunicator
from suites.gate import overlapping


class OffByOne(TorchCommunicator):
    """An all-reduce whose last element is one too large."""

    def all_reduce(self, message, out):
        super().all_reduce(message, out)
        message[-1] += 1


def run_with_wrong_sums(seat):
    """Every sum of gloo is wrong."""
    overlapping.BACKENDS["gloo"] = replace(GLOO, connect=lambda world: OffByOne(world, world.group))
    overlapping.run_rank(seat)


def run_and_hang(seat):
    """Rank 1 never comes to its first round."""
    if seat.rank == 1:
        overlapping.prepare_round = lambda *_: time.sleep(60)
    overlapping.run_rank(seat)


def run_and_die(seat):
    """Rank 1 meets an error of the host."""
    _raises(seat, "no room on this host\n  at a frame")


def run_and_fault(seat):
    """Rank 1 meets a fault of the GPU, as torch reports it."""
    _raises(seat, "CUDA error: an illegal memory access was encountered\nSearch for it")


def _raises(seat, message):
    def prepare(*_):
        raise RuntimeError(message)

    if seat.rank == 1:
        overlapping.prepare_round = prepare
    overlapping.run_rank(seat)


def says_and_exits(log, status):
    """A rank that ends before it joins."""
    log.write_text("Traceback\nImportError: no torch here\n\n")
    os._exit(status)


def sleeps(mark, seconds):
    """A rank that leaves its process id and hangs."""
    mark.write_text(str(os.getpid()))
    time.sleep(seconds)


def dies_after(mark):
    """A rank that is killed once another has left its mark."""
    while not mark.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
