"""Warnings of our own modules end a test; those inside of other packages do not."""

import warnings
from types import ModuleType

import pytest


def warn_in(module):
    """Have a module of this name warn."""
    made = ModuleType(module)
    exec("import warnings\nwarnings.warn('x', DeprecationWarning)", vars(made))


@pytest.mark.parametrize("module", ["kernels.skinny", "tests.conftest", "suites", "conftest"])
def test_a_warning_of_our_own_is_an_error(module):
    with pytest.raises(DeprecationWarning):
        warn_in(module)


@pytest.mark.parametrize("module", ["triton.compiler.code_generator", "torch", "suitesque", "ast"])
def test_a_warning_inside_another_package_is_none(module):
    with warnings.catch_warnings(record=True):
        warn_in(module)
