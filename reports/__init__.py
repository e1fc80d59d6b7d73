"""Reads result files and answers questions. Never imports torch or the suites."""
