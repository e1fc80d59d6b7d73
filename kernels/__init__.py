"""Kernels, one file each: code, launcher, float64 reference, and the work of one call."""
