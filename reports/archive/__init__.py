"""Checks, summary pages and index of the result files in `reports/data/`."""
