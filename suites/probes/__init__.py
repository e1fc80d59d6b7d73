"""Probes: how a kernel, a collective, a whole model and a share of it are measured."""
