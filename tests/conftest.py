"""What every test shares: warnings are errors.

Not so in the suites, where a warning must not cost a measurement, nor in tests/gpu, which runs with whatever
versions the machine with the GPU has.
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE) and not item.path.is_relative_to(HERE / "gpu"):
            item.add_marker(pytest.mark.filterwarnings("error"), append=False)
