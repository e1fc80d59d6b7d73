"""Probes of a kernel, a collective alone and in the step, a whole model, and a rank's share."""
