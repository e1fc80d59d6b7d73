"""Device times of a profile as a result file that `show` and `compare` read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from reports import resultfile
from reports.profiles.parts import Part
from reports.profiles.run import Run
from reports.profiles.times import Times
from reports.profiles.visit import Profile
from specs.measurement import SCHEMA, Case, Measurement

OPS: Mapping[str, str] = {"norm": "rmsnorm", "rotary": "rotary", "swiglu": "swiglu", "attention": "attention"}
"""What a part computes; the others are linears."""


def content(
    profile: Profile, found: Sequence[Times], without: Mapping[str, str], run: Run, clock: str, notes: Sequence[str]
) -> resultfile.Record:
    """The whole file.

    Args:
        profile: what was read.
        found: its cases.
        without: by case why there is no time.
        run: lends facts.
        clock: `nsys` or `ncu`.
        notes: what to mind.
    """
    machine = {
        "shardbench_schema": SCHEMA,
        "device": "cuda",
        **run.machine(profile.gpu),
        "profiler": profile.profiler,
    }
    machine["gpu"] = machine.get("gpu") or f"unknown GPU ({machine.get('arch', 'of unknown architecture')})"
    return {
        "machine_info": machine,
        "commit_info": dict(run.file.commit) if run.file else {},
        "benchmarks": [resultfile.entry(one) for times in found for one in _measurements(times, run, clock)],
        "datetime": datetime.now(UTC).isoformat(),
        "version": "",
        "shardbench": resultfile.block(
            not_run=resultfile.reasons(without),
            failed=[],
            options={"profiler": clock, "run": run.file is not None},
            notes=list(notes),
        ),
    }


def _measurements(times: Times, run: Run, clock: str) -> Iterator[Measurement]:
    case = run.case(times.case, times.question, times.launch, times.kernels[0])
    facts: dict[str, Any] = {"clock": clock, "stopped_by": "passes"}
    seconds = tuple((one.busy,) for one in times.samples)
    calls = max(1, round(times.calls / len(times.samples)))
    yield Measurement(case=case, seconds=seconds, calls=calls, telemetry=_read(times.read_bytes), **facts)
    for part in times.parts:
        each = tuple((one / part.per_layer,) for one in part.seconds)
        read = None if part.read_bytes is None else part.read_bytes / part.per_layer
        yield Measurement(case=_part(case, part), seconds=each, calls=calls, telemetry=_read(read), **facts)


def _part(case: Case, part: Part) -> Case:
    """A part as the case of one of its calls."""
    return replace(
        case,
        name=f"{case.name}/{part.name}",
        question="layer",
        op=OPS.get(part.name, "linear"),
        kernel=part.kernel,
        layer=part.name,
        flops=0,
        hbm_bytes=0,
        n=None,
        k=None,
        per_layer=part.per_layer,
    )


def _read(count: float | None) -> dict[str, float] | None:
    return None if count is None else {"dram_bytes_read": count}
