"""A timer of the tuner's that needs no GPU."""

from kernels.timing.host import TimerSamples


class Timer:
    """Runs every call once, and tells of three samples."""

    def __init__(self, device, launch):
        assert launch == "graph"

    def warm_up(self, calls, expected):
        self.made = [call() for call in calls]

    def sample(self, share):
        return TimerSamples((1e-6, 2e-6, 6e-6), len(self.made))
