"""One row of `python -m kernels inspect`: a form as compiled for an architecture, beside what memory asks of it."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from kernels.configs.cost_model import LATENCY_SECONDS, LAUNCH_SECONDS, READ_SHARE, needed_bytes
from kernels.configs.dispatch import kind
from kernels.inspection.sass import multiplying_loop, narrowest_load_bits, summary
from kernels.inspection.variants import Form
from specs.errors import UserError
from specs.gpus import Arch, blocks_per_sm
from specs.parallel import Shard
from specs.roofline import Ceilings, floor_seconds


def row(form: Form, on: Arch) -> dict[str, Any]:
    """What `inspect` tells of a form, as JSON; figures are None where `reason` says what the architecture lacks.

    Keys: kernel, config, basis (measured, static model or rule), dtype, arch, registers (32 bits each, a thread),
    spill_bytes (a thread), shared_bytes (a program), ctas_per_sm (that fit at once), bytes_in_flight_per_sm,
    bytes_needed_per_sm (by Little's law), instructions (counts), load_bits (the narrowest load of the stream), barriers
    and fences (of the loop that multiplies, see `kernels.inspection.sass`; None where there is no such loop, or no need
    of a fence), pipeline_barriers (the most that the form should have; None where no rule says), unfenced (a fence is
    missing), reason,
    predicted (a list over shapes: layer, tp, n, k, tokens, the ctas_per_sm and bytes_in_flight_per_sm that a shape
    fills, seconds, floor_seconds, share_of_floor; modelled for `gpu`).
    """
    told: dict[str, Any] = {
        "kernel": form.kernel.name,
        "config": form.config,
        "basis": form.basis,
        "dtype": form.dtype,
        "arch": on.name,
        "gpu": on.representative.slug,
        "registers": None,
        "spill_bytes": None,
        "shared_bytes": None,
        "ctas_per_sm": None,
        "bytes_in_flight_per_sm": None,
        "bytes_needed_per_sm": needed_bytes(on.representative),
        "instructions": {},
        "load_bits": None,
        "barriers": None,
        "pipeline_barriers": form.cut.pipeline_barriers if form.cut else None,
        "fences": None,
        "unfenced": None,
        "predicted": [],
        "reason": form.lacks,
    }
    if told["reason"] is not None:
        return told
    try:
        made = form.make(on.name)
    except UserError as error:  # no compiler for CUDA C++ here
        return told | {"reason": str(error)}
    ctas = blocks_per_sm(on, registers=made.registers, shared_bytes=made.shared_bytes, warps=form.warps)
    loop = multiplying_loop(made.sass)
    fences = loop.fences if loop else None
    return told | {
        "registers": made.registers,
        "spill_bytes": made.spill_bytes,
        "shared_bytes": made.shared_bytes,
        "ctas_per_sm": ctas,
        "bytes_in_flight_per_sm": ctas * form.in_flight_bytes,
        "instructions": summary(made.sass),
        "load_bits": narrowest_load_bits(made.sass),
        "barriers": loop.barriers if loop else None,
        "fences": fences,
        "unfenced": fences == 0,
        "predicted": [_predicted(form, on, ctas, shard, tokens) for shard, tokens in form.serves],
    }


def _predicted(form: Form, on: Arch, ctas: int, shard: Shard, tokens: int) -> dict[str, Any]:
    assert form.cut is not None  # noqa: S101 - only forms with a cut serve shapes
    shape = {"tokens": tokens, "n": shard.n, "k": shard.k}
    prediction = kind(tokens).predict(form.cut, on.representative, ctas, form.dtype, **shape)
    work = form.kernel.work(dtype=form.dtype, **shape)
    floor = floor_seconds(work, form.dtype, Ceilings.datasheet(on.representative))
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


# The rows of `python -m kernels inspect` for people.

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
