"""Collectives and point-to-point operations, each with its buffers, call and reference."""
