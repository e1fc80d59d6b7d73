"""Comparison of result files: changes, their certainty, and explanations."""
