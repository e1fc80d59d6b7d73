"""Rows of `python -m kernels inspect` as JSON and as a table.

A row compares a compiled form with the needs of the architecture's memory.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from kernels.configs.cost_model import LAUNCH_SECONDS, MEMORY_LATENCY_SECONDS, READ_EFFICIENCY, needed_bytes_per_sm
from kernels.configs.dispatch import search_space
from kernels.inspection.sass import multiplying_loop, narrowest_load_bits, summarise_opcodes
from kernels.inspection.variants import InspectedVariant
from specs.errors import UserError
from specs.gpus import Arch, blocks_per_sm
from specs.parallel import Shard
from specs.roofline import Ceilings, floor_seconds


def variant_record(variant: InspectedVariant, arch: Arch) -> dict[str, Any]:
    """Return the row of a form for one architecture, as JSON.

    Figures are None where `reason` names a feature that the architecture lacks. Keys: kernel, config, basis (measured,
    static model or rule), dtype, arch, registers (32 bits each, of a thread), spill_bytes (of a thread), shared_bytes
    (of a program), ctas_per_sm (that fit at once), bytes_in_flight_per_sm, bytes_needed_per_sm (by Little's law),
    instructions (counts), load_bits (the narrowest load of the stream), barriers and fences (of the multiplying loop,
    see `kernels.inspection.sass`; None without a loop or without need of a fence), pipeline_barriers (the most that the
    form should have; None without a rule), unfenced (a fence is missing), reason, predicted (a list over shapes: layer,
    tp, n, k, tokens, the ctas_per_sm and bytes_in_flight_per_sm that a shape fills, seconds, floor_seconds,
    share_of_floor; modelled for `gpu`).
    """
    told: dict[str, Any] = {
        "kernel": variant.kernel.name,
        "config": variant.config,
        "basis": variant.basis,
        "dtype": variant.dtype,
        "arch": arch.name,
        "gpu": arch.representative.slug,
        "registers": None,
        "spill_bytes": None,
        "shared_bytes": None,
        "ctas_per_sm": None,
        "bytes_in_flight_per_sm": None,
        "bytes_needed_per_sm": needed_bytes_per_sm(arch.representative),
        "instructions": {},
        "load_bits": None,
        "barriers": None,
        "pipeline_barriers": variant.linear_config.pipeline_barriers if variant.linear_config else None,
        "fences": None,
        "unfenced": None,
        "predicted": [],
        "reason": variant.missing_feature,
    }
    if told["reason"] is not None:
        return told
    try:
        made = variant.compile_for(arch.name)
    except UserError as error:  # no compiler for CUDA C++ here
        return told | {"reason": str(error)}
    ctas = blocks_per_sm(arch, registers=made.registers, shared_bytes=made.shared_bytes, warps=variant.warps)
    loop = multiplying_loop(made.sass)
    fences = loop.fences if loop else None
    return told | {
        "registers": made.registers,
        "spill_bytes": made.spill_bytes,
        "shared_bytes": made.shared_bytes,
        "ctas_per_sm": ctas,
        "bytes_in_flight_per_sm": ctas * variant.in_flight_bytes,
        "instructions": summarise_opcodes(made.sass),
        "load_bits": narrowest_load_bits(made.sass),
        "barriers": loop.barriers if loop else None,
        "fences": fences,
        "unfenced": fences == 0,
        "predicted": [_prediction_record(variant, arch, ctas, shard, tokens) for shard, tokens in variant.shapes],
    }


def _prediction_record(variant: InspectedVariant, arch: Arch, ctas: int, shard: Shard, tokens: int) -> dict[str, Any]:
    assert variant.linear_config is not None  # noqa: S101 - only forms with a cut serve shapes
    shape = {"tokens": tokens, "n": shard.n, "k": shard.k}
    prediction = search_space(tokens).predict(variant.linear_config, arch.representative, ctas, variant.dtype, **shape)
    work = variant.kernel.work(dtype=variant.dtype, **shape)
    floor = floor_seconds(work, variant.dtype, Ceilings.datasheet(arch.representative))
    share = floor / prediction.seconds if floor and prediction.seconds else None
    return {
        "layer": shard.layer,
        "tp": shard.tp,
        **shape,
        "ctas_per_sm": prediction.ctas_per_sm,
        "bytes_in_flight_per_sm": prediction.in_flight_bytes_per_sm,
        "seconds": prediction.seconds,
        "floor_seconds": floor,
        "share_of_floor": share,
    }


# The table of `python -m kernels inspect`.

NUMBER_COLUMNS = ("regs", "spills", "shared KiB", "CTAs/SM", "in flight / need KiB/SM", "barriers", "fences")
KERNEL_LABELS = {
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


def render_table(rows: Sequence[dict[str, Any]], arch: Arch) -> Iterator[RenderableType]:
    """Yield title, table and notes."""
    gpu = arch.representative
    yield f"{arch.name}, by the datasheet of {gpu}: {gpu.hbm_bytes_per_second / 1e12:.2f} TB/s, {gpu.sms} SMs\n"
    grid = Table(box=None, pad_edge=False)
    grid.add_column("kernel", no_wrap=True)
    grid.add_column("configuration", no_wrap=True)
    grid.add_column("by", no_wrap=True)
    for heading in NUMBER_COLUMNS:
        grid.add_column(heading, justify="right")
    grid.add_column("instructions")
    grid.add_column("of floor", justify="right", no_wrap=True)
    grid.add_column("shapes", justify="right")
    for one in rows:
        grid.add_row(*_row_cells(one))
    yield grid
    yield (
        f"\nneed: what keeps memory busy by Little's law, bandwidth x {MEMORY_LATENCY_SECONDS * 1e6:g} us / SMs. "
        f"'of floor' is modelled, nobody measured it: datasheet floor over predicted time, with "
        f"{LAUNCH_SECONDS * 1e6:g} us a launch and {READ_EFFICIENCY:.0%} of the datasheet's bandwidth, slowest to "
        "fastest "
        "of the shapes that run so. --format json has each shape."
    )
    yield (
        "\nbarriers: the fewest that an iteration of the multiplying loop passes; 8 > 2 where its pipeline needs 2. "
        "fences: proxy fences ahead of its matrix instruction. * unfenced: cp.async writes what the instruction reads, "
        "with no fence between them."
    )


def _row_cells(row: dict[str, Any]) -> tuple[str, ...]:
    name = KERNEL_LABELS.get(row["kernel"], row["kernel"])
    config, basis = row["config"], row["basis"] or ""
    if row["reason"] is not None:
        return name, config, basis, *("n/a",) * len(NUMBER_COLUMNS), row["reason"], "", ""
    mix = ", ".join(f"{instruction} {count}" for instruction, count in sorted(row["instructions"].items()))
    shares = [shape["share_of_floor"] for shape in row["predicted"] if shape["share_of_floor"]]
    span = f"{min(shares):.0%} – {max(shares):.0%}" if shares else ""
    return (
        name,
        config,
        basis,
        str(row["registers"]),
        str(row["spill_bytes"]),
        f"{row['shared_bytes'] / 1024:.1f}",
        str(row["ctas_per_sm"]),
        f"{row['bytes_in_flight_per_sm'] / 1024:.0f} / {row['bytes_needed_per_sm'] / 1024:.0f}",
        _barriers_cell(row["barriers"], row["pipeline_barriers"]),
        "" if row["fences"] is None else f"{row['fences']}{'*' if row['unfenced'] else ''}",
        mix,
        span,
        str(len(row["predicted"])) if row["predicted"] else "",
    )


def _barriers_cell(found: int | None, needed: int | None) -> str:
    if found is None:
        return ""
    return f"{found} > {needed}" if needed is not None and found > needed else str(found)
