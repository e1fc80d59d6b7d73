"""What the *_perf programs of nccl-tests and rccl-tests print, as cases like those of the suites."""
