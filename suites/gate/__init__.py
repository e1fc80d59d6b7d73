"""The GPU gate, `make gpu`: what a machine with a GPU has to show in one go, step by step, in a bounded time."""
