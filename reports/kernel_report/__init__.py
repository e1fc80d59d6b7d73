"""Decode kernels beside the library and the floor, with targets."""
