"""NVTX ranges, so that a Nsight Systems timeline shows each case by its name.

Domain `shardbench`, category the suite's question, payload the number of the case in the run. The outer range
is named by the case, with `warm-up` and `timed` inside it. The call that is checked stands in the warm-up in a range
`call` of its own, and what has parts, a layer, shows them there by name. Behind the samples two marks carry figures:
`calls`, how many `timed` holds, and `seconds a call`, what our own clock says; so a trace needs no other file beside
it. `between` inside `timed` stands around what is in no sample: ranks' barriers and values filled in, and load that
brings a GPU's clock up. The package registers each message, and registered strings are what `nsys profile
--nvtx-capture` matches by default. With no tool attached a range costs about a microsecond, and none is opened inside a
sample. Without the package nvtx there are no ranges.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from specs.journal import CALLS_MARK, NVTX_DOMAIN, SECONDS_MARK


class NullDomain:
    """Stands in where nvtx is not installed: a run is measured all the same, and has no ranges."""

    def push_range(self, _attributes: Any) -> None:
        """Open nothing."""

    def pop_range(self) -> None:
        """Close nothing."""

    def mark(self, _attributes: Any) -> None:
        """Say nothing."""

    def get_category_id(self, _name: str) -> int:
        """The same for all."""
        return 0

    def get_event_attributes(self, **_: Any) -> None:
        """Attributes of nothing."""


def open_domain() -> Any:
    """The domain of our ranges; one that does nothing where nvtx is not installed."""
    try:
        import nvtx
    except ImportError:
        return NullDomain()
    return nvtx.get_domain(NVTX_DOMAIN)


_domain = open_domain()


@contextmanager
def annotate(message: str, category: str, payload: int) -> Iterator[None]:
    """A range around the body of a `with`."""
    _domain.push_range(_attributes(message, category, payload))
    try:
        yield
    finally:
        _domain.pop_range()


@contextmanager
def annotate_case(label: Mapping[str, Any], part: str) -> Iterator[None]:
    """The range of a case, by what ranks are told of it (name, question and number), and in it warm-up or timed."""
    name, question, number = (label[key] for key in ("name", "question", "number"))
    with annotate(name, question, number), annotate(part, question, number):
        yield


def mark_timing(category: str, calls: int, seconds: Sequence[float]) -> None:
    """Marks with what a visit gave: calls outside `between`, and the median of samples in seconds a call."""
    _domain.mark(_attributes(CALLS_MARK, category, calls))
    if seconds:
        _domain.mark(_attributes(SECONDS_MARK, category, float(median(seconds))))


def _attributes(message: str, category: str, payload: float) -> Any:
    return _domain.get_event_attributes(
        message=message,
        category=_domain.get_category_id(category),
        payload=payload,
    )
