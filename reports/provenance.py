"""A word to stand beside times with programmatic dependent launch."""

from collections.abc import Iterable

IMPLEMENTATIONS = ("triton-pdl",)
NOTE = (
    "triton-pdl: in a chain of one linear each call prefetches the next call's weights; a layer has other kernels "
    "between its linears and gains less"
)


def notes(implementations: Iterable[str]) -> tuple[str, ...]:
    """The note where any of these launches so."""
    return (NOTE,) if set(implementations) & set(IMPLEMENTATIONS) else ()
