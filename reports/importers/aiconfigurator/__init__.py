"""NVIDIA's published timings, from the package aiconfigurator-core."""
