"""How far a host's clock is ahead of rank 0's host's: what happened on two ranks can then be put in an order.

Processes of one host share perf_counter on Linux, so nothing is asked there. Between hosts rank 0 is asked for its time
again and again: it reads its clock after the question was sent and before the answer came, so half the round trip of
the quickest exchange bounds the error.
"""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

ROUNDS = 40


def ahead_of_first(rank: int, ranks: int, host: str, now: Callable[[], float] = time.perf_counter) -> float:
    """Seconds; every rank has to call it, with the default group of torch.distributed there.

    Args:
        rank: this one of how many.
        ranks: how many.
        host: what tells this host from others.
        now: the clock.
    """
    mark = torch.tensor([int(host[:15], 16)], dtype=torch.int64)
    marks = [torch.empty_like(mark) for _ in range(ranks)]
    dist.all_gather(marks, mark)
    found = 0.0
    for other in range(1, ranks):
        if int(marks[other]) != int(marks[0]) and rank in (0, other):
            found = _answer(other, now) if rank == 0 else _ask(now)
    return found


def _answer(other: int, now: Callable[[], float]) -> float:
    question = torch.empty(1)
    for _ in range(ROUNDS):
        dist.recv(question, other)
        dist.send(torch.tensor([now()], dtype=torch.float64), other)
    return 0.0


def _ask(now: Callable[[], float]) -> float:
    question, answer, tries = torch.zeros(1), torch.empty(1, dtype=torch.float64), []
    for _ in range(ROUNDS):
        sent = now()
        dist.send(question, 0)
        dist.recv(answer, 0)
        came = now()
        tries.append((came - sent, (sent + came) / 2 - float(answer)))
    return min(tries)[1]
