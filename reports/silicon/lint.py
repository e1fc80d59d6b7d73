"""What published points cannot be, and what is odd about them.

A GEMM has to read its weights once a call. The collector rotates through at most six copies of them (TensorRT-LLM's
through as few as one), so a cache may serve a part: such points are no cold measurements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specs.gpus import GPUS, Gpu

COPIES = 6
"""Copies of the weights that the collector rotates through, at most."""
COLD = 4
"""A pool of less than this many times the L2 may have been read from it in part."""
DIP = 1.25
"""A point that is slower than a later one by more than this is marked: more tokens cannot take less time but by noise,
or because the library picks a poor kernel below them."""


@dataclass(frozen=True)
class Linted:
    """One series over tokens after the checks.

    Attributes:
        seconds: the points that may be, by tokens.
        maybe_hot: whether a cache may have held the weights.
        doubts: what is odd, by tokens.
        refused: why a point was taken out, by tokens.
    """

    seconds: Mapping[int, float]
    maybe_hot: bool
    doubts: Mapping[int, Sequence[str]]
    refused: Mapping[int, str]


def l2_bytes(gpu: Gpu) -> int:
    """The GPU's L2; where it is unknown, the largest known of its generation or else of all."""
    if gpu.l2_bytes:
        return gpu.l2_bytes
    known = [(row.arch[:-1] == gpu.arch[:-1], row.l2_bytes) for row in GPUS.values() if row.l2_bytes]
    return max(known)[1]


def maybe_hot(weight_bytes: float, gpu: Gpu, copies: int = COPIES) -> bool:
    """Whether the rotated copies fit a few times the L2, so that a part of them may have come from it."""
    return copies * weight_bytes < COLD * l2_bytes(gpu)


def linear(seconds: Mapping[int, float], weight_bytes: float, gpu: Gpu, copies: int = COPIES) -> Linted:
    """Check one linear over tokens.

    Args:
        seconds: time of a call by tokens.
        weight_bytes: bytes of one copy of the weights.
        gpu: whose memory they were read from.
        copies: how many copies the calls rotated through.
    """
    hot = maybe_hot(weight_bytes, gpu, copies)
    refused: dict[int, str] = {}
    floor = weight_bytes / gpu.hbm_bytes_per_second
    if weight_bytes > l2_bytes(gpu):
        refused = {
            tokens: f"reads {weight_bytes / 1e6:.0f} MB of weights at {floor / time:.2f} times the memory's bandwidth"
            for tokens, time in seconds.items()
            if time < floor
        }
    hot = hot or any(time < floor for time in seconds.values())  # what one point got from a cache, its neighbours may
    kept = {tokens: time for tokens, time in seconds.items() if tokens not in refused}
    return Linted(kept, hot, dips(kept), refused)


def dips(seconds: Mapping[int, float]) -> dict[int, Sequence[str]]:
    """Points that are slower than one with more tokens."""
    found: dict[int, Sequence[str]] = {}
    best, where = float("inf"), 0
    for tokens in sorted(seconds, reverse=True):
        if seconds[tokens] > DIP * best:
            found[tokens] = (f"{seconds[tokens] / best:.2f} times the time of {where} tokens",)
        if seconds[tokens] < best:
            best, where = seconds[tokens], tokens
    return found
