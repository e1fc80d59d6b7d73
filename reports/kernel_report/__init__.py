"""Kernels of decode and prefill beside the library and the floor, with targets."""
