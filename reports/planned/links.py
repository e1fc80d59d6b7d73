"""Whether all-reduces make use of the link: where they hardly do, a finding is on that system and not on its link."""

from reports import units
from reports.plan.missing import MissingError
from reports.planned.subject import Subject
from specs import traffic
from specs.units import binary_bytes

LEAST = 0.1
"""Of the link's rate by datasheet, under which what was measured is far from what the link can do."""
TOKENS = 1024
"""Whose message is so large, 16 MiB with 8192 elements of two bytes, that latency hardly counts."""


def slow(subject: Subject) -> str:
    """`all-reduces of 16 MiB at 5–6% of the link`, of those that are asked for; empty where none is that slow."""
    gpu, ranks = subject.system.gpu, subject.asked.gpus
    message = TOKENS * subject.asked.cut.hidden * subject.system.itemsize
    found = []
    for parts in subject.parts if gpu else ():
        try:
            found.append(traffic.busbw("all_reduce", ranks, message, parts.messages.all_reduce(ranks, message).seconds))
        except MissingError:
            continue
    shares = sorted(one / gpu.link_bytes_per_second for one in found if one and gpu)
    if not shares or shares[0] >= LEAST:
        return ""
    low, high = (units.percent(one) for one in (shares[0], shares[-1]))
    span = low if low == high else f"{low.removesuffix('%')}–{high}"
    return f"all-reduces of {binary_bytes(message)} at {span} of the link"
