"""The program of a rank with faults planted in it by the environment.

PLANTED is a list in JSON. Of each: the `rank` that it happens to, `what` happens, `when` (a command of the parent, or
`in` the checked call), at which message (`kib`), and only if the message `after` was set up before. SEEN is a folder:
each rank's process leaves a file there named by its number, which says how many ranks there were already, and
`struck-4` when the fault at 4 KiB happens.
"""

import json
import os
import signal
import threading
import time
from pathlib import Path

import torch

from comm.backends.torch_distributed import TorchCommunicator
from suites.workers import worker
from suites.workers.worker import RankWorker
from tests.suites.workers.runs import is_alive

PLANTED = json.loads(os.environ["PLANTED"])
SEEN = Path(os.environ["SEEN"])
BF16_BYTES = 2
LATE_SECONDS = 1.0
"""The others enter the call so much later, so that the rank is in it when it is struck."""
PAUSE_SECONDS = 30.0
"""Time for a test to do something to the run while it measures."""


def loop():
    while True:
        pass


FAULTS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "loop": loop,
    "sleep": lambda: time.sleep(3600),
    "pause": lambda: time.sleep(PAUSE_SECONDS),
    "too much memory": lambda: torch.empty(2**50),
}


class FaultyRankWorker(RankWorker):
    """A rank that does as it is told until the fault."""

    def __init__(self):
        super().__init__()
        self.rank, self.drawn = None, [None]

    def execute(self, command, arguments):
        if command == "join":
            self.rank = arguments["world"]["rank"]
        if command == "draw":
            self.drawn.append(arguments["task"]["elements"] * BF16_BYTES // 1024)
        for fault in PLANTED:
            if self.is_time(fault, command):
                self.meet(fault, arguments)
        return super().execute(command, arguments)

    def is_time(self, fault, command):
        moment = "check" if fault["when"] == "in" else fault["when"]
        return command == moment and fault["kib"] == self.drawn[-1] and fault["after"] in self.drawn

    def meet(self, fault, arguments):
        mine = self.rank == fault["rank"]
        if fault["when"] == "in":
            enter_next_call(fault, mine)
        elif mine:
            strike(fault, arguments)


def strike(fault, arguments):
    SEEN.joinpath(f"struck-{fault['kib']}").touch()
    if fault["what"] == "another shape":
        arguments["task"]["elements"] *= 2
    else:
        FAULTS[fault["what"]]()


def enter_next_call(fault, mine):
    """Have a rank struck while its call runs: that cannot end before the others enter it, too."""
    real = TorchCommunicator.all_reduce

    def call(self, message, out):
        if mine:
            threading.Timer(LATE_SECONDS / 2, strike, (fault, {})).start()
        else:
            time.sleep(LATE_SECONDS)
        real(self, message, out)

    TorchCommunicator.all_reduce = call


if __name__ == "__main__":
    earlier = [int(one.name) for one in SEEN.iterdir() if one.name.isdecimal()]
    SEEN.joinpath(str(os.getpid())).write_text(str(sum(map(is_alive, earlier))))
    worker.RankWorker = FaultyRankWorker
    worker.main()
