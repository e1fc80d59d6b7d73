"""NVTX ranges, so that a Nsight Systems timeline shows each case by its name.

Domain `shardbench`, category the suite's question, payload the number of the case in the run. The outer range
is named by the case, with `warm-up` and `timed` inside it; what has parts, a layer, shows them by name in its warm-up.
The package registers each message, and registered
strings are what `nsys profile --nvtx-capture` matches by default. With no tool attached a range
costs about a microsecond, and none is opened inside a sample.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import nvtx

_domain = nvtx.get_domain("shardbench")


@contextmanager
def mark(message: str, category: str, payload: int) -> Iterator[None]:
    """A range around the body of a `with`."""
    attributes = _domain.get_event_attributes(
        message=message,
        category=_domain.get_category_id(category),
        payload=payload,
    )
    _domain.push_range(attributes)
    try:
        yield
    finally:
        _domain.pop_range()


@contextmanager
def visit(label: Mapping[str, Any], part: str) -> Iterator[None]:
    """The range of a case, by what ranks are told of it (name, question and number), and in it warm-up or timed."""
    name, question, number = (label[key] for key in ("name", "question", "number"))
    with mark(name, question, number), mark(part, question, number):
        yield
