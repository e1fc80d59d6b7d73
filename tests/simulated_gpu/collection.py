"""A pytest plugin of simulated processes: leaves out what needs values computed on the device, or several of them."""

import os
import threading
from typing import Any

NEEDS_VALUES = ("caught", "slots_of_a_cache", "test_decoder_on_gpu")
"""Tests that look at values of results; tests of ranks over NCCL."""


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Deselect them."""
    out = [item for item in items if any(word in item.nodeid for word in NEEDS_VALUES)]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def pytest_runtestloop(session: Any) -> None:
    """Never end, where that is asked."""
    if session.items and os.environ.get("SHARDBENCH_SIMULATED_TESTS") == "hang":
        threading.Event().wait(300)  # real seconds: sleep tells virtual ones here
