"""The command that makes a plan again."""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from reports.plan.asked import Asked
from reports.plan.fabric import Fabric

USUAL = Asked(model="llama-3-70b", gpus=8)
"""What `python -m reports plan` is asked where no option says otherwise."""
PLAIN = ("model", "gpus", "context", "dtype", "backend", "partition", "draft_tokens", "prefill_chunk", "layers")
LISTS = {"batches": "batch", "latencies": "latency"}
LINKS = {
    "nodes": "nodes",
    "gpus_per_node": "gpus-per-node",
    "bytes_per_second": "link-bandwidth",
    "latency_seconds": "link-latency",
    "share": "link-share",
}


def command(paths: Iterable[Path], asked: Asked) -> str:
    """`python -m reports plan FILE --context 256`: the options that differ from the usual ones."""
    return shlex.join(["python", "-m", "reports", "plan", *map(str, paths), *_options(asked)])


def _options(asked: Asked) -> Iterator[str]:
    for name in PLAIN:
        if (value := getattr(asked, name)) != getattr(USUAL, name):
            yield from (f"--{name.replace('_', '-')}", str(value))
    if asked.launches != USUAL.launches:
        yield from ("--launch", asked.launches[0])
    for name, option in LISTS.items():
        if tuple(values := getattr(asked, name)) != tuple(getattr(USUAL, name)):
            yield from (f"--{option}", ",".join(map(str, values)))
    for name, option in LINKS.items():
        if (value := getattr(asked.fabric, name)) != getattr(Fabric(), name):
            yield from (f"--{option}", str(value))
