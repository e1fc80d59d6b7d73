"""One row of `python -m kernels inspect`: a form as compiled for an architecture, beside what memory asks of it."""

from typing import Any

from kernels.inspection.form import Form
from kernels.inspection.loop import multiplying_loop
from kernels.inspection.machine_code import narrowest_load_bits, summary
from kernels.tuning.kinds import kind
from kernels.tuning.model import needed_bytes
from specs.errors import UserError
from specs.gpus import Arch, blocks_per_sm
from specs.parallel import Shard
from specs.roofline import Ceilings, floor_seconds


def row(form: Form, on: Arch) -> dict[str, Any]:
    """What `inspect` tells of a form, as JSON; figures are None where `reason` says what the architecture lacks.

    Keys: kernel, config, basis (measured, static model or rule), dtype, arch, registers (32 bits each, a thread),
    spill_bytes (a thread), shared_bytes (a program), ctas_per_sm (that fit at once), bytes_in_flight_per_sm,
    bytes_needed_per_sm (by Little's law), instructions (counts), load_bits (the narrowest load of the stream), barriers
    and fences (of the loop that multiplies, see `kernels.inspection.loop`; None where there is no such loop, or no need
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
