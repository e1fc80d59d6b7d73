"""Probes of a kernel, a collective, a whole model, and a rank's share of a model."""
