"""One rank whose host's clock is PLANTED seconds ahead prints what it takes that for: RANK RANKS PORT PLANTED HOST."""

import sys
import time

import torch.distributed as dist

from suites.decoder.trace import clock_offset

if __name__ == "__main__":
    rank, ranks, port = map(int, sys.argv[1:4])
    planted, host = float(sys.argv[4]), sys.argv[5]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    print(clock_offset(rank, ranks, host, lambda: time.perf_counter() + planted))  # noqa: T201 - the answer
