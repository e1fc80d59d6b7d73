"""NVTX ranges that show each case by name in an Nsight Systems timeline.

Domain: `shardbench`. Category: the suite's question. Payload: the number of the case in the run. The outer range has
the case's name and contains `warm-up` and `timed`. The checked call has its own range `call` in the warm-up; a layer
shows its parts there by name. `between`, inside `timed`, covers work outside the samples: ranks' barriers, filled
values, and load that raises a GPU's clock. After the samples two marks carry figures: `calls`, the number of calls in
`timed`, and `seconds a call`, by our own clock. A trace thus needs no other file.

The package registers each message, and `nsys profile --nvtx-capture` matches registered strings by default. Without a
tool attached a range costs about 1 us; no range opens inside a sample. Without the package nvtx there are no ranges.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from specs.journal import CALLS_MARK, NVTX_DOMAIN, SECONDS_MARK


class NullDomain:
    """Domain without ranges, for runs where nvtx is not installed."""

    def push_range(self, _attributes: Any) -> None:
        """Open no range."""

    def pop_range(self) -> None:
        """Close no range."""

    def mark(self, _attributes: Any) -> None:
        """Set no mark."""

    def get_category_id(self, _name: str) -> int:
        """Return the same id for every name."""
        return 0

    def get_event_attributes(self, **_: Any) -> None:
        """Return no attributes."""


def open_domain() -> Any:
    """Domain of the suites' ranges; without nvtx, one without ranges."""
    try:
        import nvtx
    except ImportError:
        return NullDomain()
    return nvtx.get_domain(NVTX_DOMAIN)


_domain = open_domain()


@contextmanager
def annotate(message: str, category: str, payload: int) -> Iterator[None]:
    """Open a range around the body of a `with`."""
    _domain.push_range(_attributes(message, category, payload))
    try:
        yield
    finally:
        _domain.pop_range()


@contextmanager
def annotate_case(label: Mapping[str, Any], part: str) -> Iterator[None]:
    """Open a case's range from its label, and inside it the warm-up or timed range."""
    name, question, number = (label[key] for key in ("name", "question", "number"))
    with annotate(name, question, number), annotate(part, question, number):
        yield


def mark_timing(category: str, calls: int, seconds: Sequence[float]) -> None:
    """Mark a visit's calls outside `between`, and its median seconds per call."""
    _domain.mark(_attributes(CALLS_MARK, category, calls))
    if seconds:
        _domain.mark(_attributes(SECONDS_MARK, category, float(median(seconds))))


def _attributes(message: str, category: str, payload: float) -> Any:
    return _domain.get_event_attributes(
        message=message,
        category=_domain.get_category_id(category),
        payload=payload,
    )
