"""Bare loop of one all-reduce: the baseline for the overhead of the suites.

    python -m suites.workers.bare RANK RANKS PORT BYTES

For every input line `N`, make N calls and print the seconds per call.
"""

import sys
import time

import torch
import torch.distributed as dist


def main() -> None:
    """Join the ranks, then answer each line until the input ends."""
    rank, ranks, port, size = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    message = torch.ones(size // 2, dtype=torch.bfloat16)
    for line in sys.stdin:
        count = int(line)
        message.fill_(1.0)  # the sum doubles with each call, and must not overflow
        dist.all_reduce(message)
        start = time.perf_counter()
        for _ in range(count):
            dist.all_reduce(message)
        print((time.perf_counter() - start) / count, flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
