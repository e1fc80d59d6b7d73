"""The rows of `python -m kernels inspect` for people."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from kernels.tuning.model import LATENCY_SECONDS, LAUNCH_SECONDS, READ_SHARE
from specs.gpus import Arch

NUMBERS = ("regs", "spills", "shared KiB", "CTAs/SM", "in flight / need KiB/SM", "barriers", "fences")
SHOWN = {
    "triton_skinny": "skinny",
    "triton_skinny_pdl": "skinny pdl",
    "cuda_gemv": "cuda gemv",
    "triton_decode_attention": "attention",
    "triton_paged_attention": "attn paged",
    "triton_gemm": "gemm",
    "triton_gemm_gate_up": "gemm gate+up",
    "triton_read": "read",
    "triton_skinny_gate_up": "gate_up",
    "triton_skinny_gate_up_pdl": "gate_up pdl",
    "triton_rmsnorm": "rmsnorm",
    "triton_rotary": "rotary",
    "triton_swiglu": "swiglu",
}


def table(rows: Sequence[dict[str, Any]], on: Arch) -> Iterator[RenderableType]:
    """Title, table and what it rests on."""
    gpu = on.representative
    yield f"{on.name}, by the datasheet of {gpu}: {gpu.hbm_bytes_per_second / 1e12:.2f} TB/s, {gpu.sms} SMs\n"
    grid = Table(box=None, pad_edge=False)
    grid.add_column("kernel", no_wrap=True)
    grid.add_column("configuration", no_wrap=True)
    grid.add_column("by", no_wrap=True)
    for heading in NUMBERS:
        grid.add_column(heading, justify="right")
    grid.add_column("instructions")
    grid.add_column("of floor", justify="right", no_wrap=True)
    grid.add_column("shapes", justify="right")
    for one in rows:
        grid.add_row(*_cells(one))
    yield grid
    yield (
        f"\nneed: what keeps memory busy by Little's law, bandwidth x {LATENCY_SECONDS * 1e6:g} us / SMs. "
        f"'of floor' is modelled, nobody measured it: datasheet floor over predicted time, with "
        f"{LAUNCH_SECONDS * 1e6:g} us a launch and {READ_SHARE:.0%} of the datasheet's bandwidth, slowest to fastest "
        "of the shapes that run so. --format json has each shape."
    )
    yield (
        "\nbarriers: the fewest that an iteration of the multiplying loop passes; 8 > 2 where its pipeline needs 2. "
        "fences: proxy fences ahead of its matrix instruction. * unfenced: cp.async writes what the instruction reads, "
        "with no fence between them."
    )


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    name = SHOWN.get(one["kernel"], one["kernel"])
    config, basis = one["config"], one["basis"] or ""
    if one["reason"] is not None:
        return name, config, basis, *("n/a",) * len(NUMBERS), one["reason"], "", ""
    mix = ", ".join(f"{instruction} {count}" for instruction, count in sorted(one["instructions"].items()))
    shares = [shape["share_of_floor"] for shape in one["predicted"] if shape["share_of_floor"]]
    span = f"{min(shares):.0%} – {max(shares):.0%}" if shares else ""
    return (
        name,
        config,
        basis,
        str(one["registers"]),
        str(one["spill_bytes"]),
        f"{one['shared_bytes'] / 1024:.1f}",
        str(one["ctas_per_sm"]),
        f"{one['bytes_in_flight_per_sm'] / 1024:.0f} / {one['bytes_needed_per_sm'] / 1024:.0f}",
        _barriers(one["barriers"], one["pipeline_barriers"]),
        "" if one["fences"] is None else f"{one['fences']}{'*' if one['unfenced'] else ''}",
        mix,
        span,
        str(len(one["predicted"])) if one["predicted"] else "",
    )


def _barriers(found: int | None, needed: int | None) -> str:
    if found is None:
        return ""
    return f"{found} > {needed}" if needed is not None and found > needed else str(found)
