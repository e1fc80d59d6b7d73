"""Kernel configurations: their space, cost models, tuned tables and dispatch."""
