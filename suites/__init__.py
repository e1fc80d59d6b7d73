"""Suites for pytest-benchmark, one question a file, and the machinery behind them."""
