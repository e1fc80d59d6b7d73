"""Composes measured and published parts into steps of whole models, for any way to cut them over any number of GPUs."""
