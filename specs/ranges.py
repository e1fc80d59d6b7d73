"""What the suites' NVTX ranges and marks are called, for those who open them and those who read a trace of them."""

DOMAIN = "shardbench"
WARM_UP, TIMED = "warm-up", "timed"
"""Within the range of a case."""
CALL = "call"
"""Within the warm-up: the one call that is checked, and in it by name the parts of what has any."""
CALLS, SECONDS = "calls", "seconds a call"
"""Marks behind the samples: how many calls `timed` holds, and what the suite's own clock says."""
