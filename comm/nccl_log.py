"""What NCCL says of its choices with NCCL_DEBUG=INFO and NCCL_DEBUG_SUBSYS=TUNING. Text in, facts out.

    NCCL INFO AllReduce: 16384 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..3}
    NCCL INFO AllReduce: 16384 Bytes -> Algo 1 proto 0 time 12.300000                        (before 2.24)
    NCCL INFO AllReduce [Symmetric]: 16384 Bytes -> Kernel AllReduce_AGxLL_R nchannels 4 …   (from 2.27)

The bytes are the larger of what a rank sends and receives: what nccl-tests and specs/traffic.py call the message. Only
the symmetric kernels are told with the bytes that a rank sends, so of them those count whose ranks send the message.
"""

import re
from collections import defaultdict

OPS = {
    "AllReduce": "all_reduce",
    "AllGather": "all_gather",
    "ReduceScatter": "reduce_scatter",
    "Broadcast": "broadcast",
}
ALGORITHMS = ("tree", "ring", "collnet-direct", "collnet-chain", "nvls", "nvls-tree", "pat")
"""In the order of NCCL's numbers, which older ones print."""
PROTOCOLS = ("LL", "LL128", "SIMPLE")
_NAMES = {"COLLNETDIRECT": "collnet-direct", "COLLNETCHAIN": "collnet-chain", "NVLSTREE": "nvls-tree"}

_CHOICE = re.compile(
    r"(?P<op>[A-Z][A-Za-z]+)(?: \[[^\]]+\])?: (?P<bytes>\d+) Bytes -> "
    r"(?:Algo (?P<algorithm>\w+) proto (?P<protocol>\w+)|Kernel (?P<kernel>\w+))"
)


def choices(log: str) -> dict[tuple[str, int], str]:
    """(op, message bytes) to algorithm and protocol, `ring LL`; left out where NCCL chose now this and now that."""
    told = defaultdict[tuple[str, int], set[str]](set)
    for line in _CHOICE.finditer(log):
        if (op := OPS.get(line["op"])) and (choice := _choice(line)):
            told[op, int(line["bytes"])].add(choice)
    return {case: found.pop() for case, found in told.items() if len(found) == 1}


def _choice(line: re.Match[str]) -> str | None:
    if line["kernel"]:
        return f"symmetric {line['kernel']}" if line["op"] in ("AllReduce", "Broadcast") else None
    algorithm, protocol = _named(line["algorithm"], ALGORITHMS), _named(line["protocol"], PROTOCOLS)
    return f"{algorithm} {protocol}" if algorithm and protocol else None


def _named(word: str, names: tuple[str, ...]) -> str | None:
    """A name as it stands in `names`, whether printed as a number, in capitals or not; None for an unknown one."""
    if word.isdecimal():
        return names[int(word)] if int(word) < len(names) else None
    plain = word.upper().replace("_", "")
    return next((name for name in names if _NAMES.get(plain, plain).upper() == name.upper()), None)
