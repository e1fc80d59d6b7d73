"""Traces of Nsight Systems and tables of Nsight Compute."""
