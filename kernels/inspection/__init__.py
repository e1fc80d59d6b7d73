"""Compiled code without a GPU: registers, spills, shared memory, machine code."""
