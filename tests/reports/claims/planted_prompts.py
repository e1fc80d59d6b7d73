"""Attention of prompts for the planted parts of tests/reports/plan/planted_parts.py, and other prices of messages."""

from tests.reports import planted
from tests.reports.plan import planted_parts
from tests.reports.plan.planted_parts import US, attention

L40S = planted_parts.PUBLISHED | {"gpu": "NVIDIA L40S", "gpu_memory_bytes": 48_000_000_000}


def prompt_attention(tokens=1024):
    """Attention of one prompt of 1024 tokens: 400 us under TP1, 50 us under TP8."""
    return [attention(tp, 1, tokens, 400 / tp * US, phase="prefill") for tp in (1, 8)]


def with_cheaper_all_reduces(measurements, factor):
    """All-reduces that take so much less."""
    return [
        planted.replace(one, seconds=((one.median / factor,),)) if one.case.op == "all_reduce" else one
        for one in measurements
    ]
