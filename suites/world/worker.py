"""The program of one rank: it does what its parent tells it, one command at a time, and says how that went.

A second thread tells the parent that the process lives and what it is doing, and ends it when the parent is gone: no
rank outlives the run.
"""

import ctypes
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from types import FrameType

from specs.privacy import here
from suites.world.stand import Stand
from suites.world.wire import BEAT_SECONDS, Wire

PARENT_GONE = 3
FAREWELL_SECONDS = 2.0
"""MPI wants its end told, which all ranks have to do together."""


def one_line(error: BaseException) -> str:
    """What an exception says, in a line; without this host's name, which no other host can tell for one."""
    told = here().text(" ".join(str(error).split()))
    return f"{type(error).__name__}: {told[:300]}" if told else type(error).__name__


class Pulse(threading.Thread):
    """Tells the parent once a second where the main thread is."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(daemon=True)
        self._wire, self._main = wire, threading.main_thread().ident
        self.doing = "starting"

    def run(self) -> None:
        """Until the parent is gone."""
        while self._wire.tell({"beat": self.doing, "in": self._function()}):
            threading.Event().wait(BEAT_SECONDS)
        os._exit(PARENT_GONE)

    def _function(self) -> str:
        frame: FrameType | None = sys._current_frames().get(self._main or 0)
        return frame.f_code.co_name if frame else ""


def serve(wire: Wire) -> None:
    """Do what the parent says until it says `end` or hangs up."""
    pulse, stand = Pulse(wire), Stand()
    pulse.start()
    while (command := wire.hear()) is not None and command["do"] != "end":
        pulse.doing = command["do"]
        try:
            reply = {"done": command["do"], **stand.do(command["do"], command["with"])}
        except (Exception, SystemExit) as error:  # whatever a library raises is told; the parent decides
            reply = {"failed": one_line(error), "doing": command["do"]}
        pulse.doing = "waiting"
        wire.tell({**reply, "turn": command["turn"]})
    threading.Timer(FAREWELL_SECONDS, os._exit, (0,)).start()
    stand.close()
    os._exit(0)  # what a library would still do at exit can hang when another rank is gone


def main() -> None:
    """The connection to the parent is the file descriptor in the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    if sys.platform == "linux":  # should the parent be killed together with its pipes held open elsewhere
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    serve(Wire(Connection(int(sys.argv[1]))))


if __name__ == "__main__":
    main()
