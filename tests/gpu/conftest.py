"""What every test on a GPU shares: one that loses the GPU's context ends no other."""

from tests.gpu.cuda_fault_plugin import pytest_configure, pytest_handlecrashitem, pytest_runtest_makereport

__all__ = ["pytest_configure", "pytest_handlecrashitem", "pytest_runtest_makereport"]
