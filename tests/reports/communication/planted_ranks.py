"""Operations between ranks with planted latency and bandwidth."""

import random
from math import exp

from specs import traffic
from tests.reports import planted

SIZES = tuple(2**power for power in range(10, 25, 2))
"""1 KiB to 16 MiB."""
BARE = {"model": None, "layer": None, "tp": None, "pp": None, "tokens": None, "n": None, "k": None}


def case(message_bytes=2**24, op="all_reduce", **changes):
    """An all-reduce by gloo over four ranks, back-to-back."""
    ranks, implementation = changes.get("ranks", 4), changes.get("implementation", "gloo")
    told = [f"{changes[name]}" for name in ("launch", "gap_seconds", "pair", "dtype") if name in changes]
    usual = BARE | {
        "question": "communication",
        "op": op,
        "implementation": implementation,
        "kernel": f"{implementation}_{op}",
        "flops": 0,
        "hbm_bytes": 0,
        "wire_bytes_sent_per_rank": traffic.bytes_sent_per_rank(op, ranks, message_bytes),
        "cache": "hot",
        "launch": "eager",
        "ranks": 4,
        "message_bytes": message_bytes,
    }
    name = changes.pop(
        "name", f"suites/bench.py::bench[{'-'.join([op, implementation, f'{ranks}x{message_bytes}', *told])}]"
    )
    return planted.case(name, **{**usual, **changes})


def sweep(alpha=20e-6, rate=2e9, sizes=SIZES, facts=None, **changes):
    """Exact times of alpha + message / rate."""
    return [planted.measured(case(size, **changes), alpha + size / rate, **(facts or {})) for size in sizes]


def noisy_sweep(alpha, rate, seed, passes=6, sizes=SIZES, **changes):
    """The same in passes of which each has its own latency and bandwidth, and samples that hardly differ."""
    rng = random.Random(seed)
    found: dict[int, list[tuple[float, ...]]] = {size: [] for size in sizes}
    for _ in range(passes):
        a, r = alpha * exp(rng.gauss(0, 0.05)), rate * exp(rng.gauss(0, 0.05))
        for size in sizes:
            found[size].append(tuple((a + size / r) * exp(rng.gauss(0, 0.005)) for _ in range(5)))
    return [planted.measured(case(size, **changes), tuple(one)) for size, one in found.items()]


def published(times, implementation="custom", framework="vllm", ranks=8, **changes):
    """Points as an import writes them: microseconds by message."""
    kernel = {"nccl": "NCCL"}.get(implementation, f"{framework}_{changes.get('launch', 'eager')}")
    shape = {"implementation": implementation, "kernel": kernel, "ranks": ranks, "tp": ranks, "cache": "unknown"}
    found = []
    for size, us in times.items():
        one = case(size, **{**shape, **changes})
        one = planted.replace(one, name=one.name.replace(implementation, f"{implementation}-{framework}"))
        facts = {"provenance": "published", "framework": framework, "version": "1.0", "kernel_source": kernel}
        found.append(planted.measured(one, ((us * 1e-6,),), **facts))
    return found
