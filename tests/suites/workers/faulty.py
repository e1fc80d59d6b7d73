"""A pytest plugin of the fault tests: the ranks run a program that faults can be planted in."""

import signal
import sys

from suites.workers import process

process.WORKER_COMMAND = (sys.executable, "-m", "tests.suites.workers.faulty_worker")
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts with & inherits it ignored
