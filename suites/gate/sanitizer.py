"""Steps that run compute-sanitizer: our kernels, and planted faults.

A tool that misses a planted fault proves nothing. memcheck: accesses out of bounds. racecheck: hazards in shared
memory. planted: only the planted access out of bounds.
"""

import re
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from suites.gate.machine import find_tool
from suites.gate.step import (
    TORCH_PACKAGES,
    Step,
    Verdict,
    parse_options,
    run_limited,
    run_step,
    timed_program,
    write_verdict,
)

UNSUPPORTED_MESSAGES = ("Device not supported", "device is not supported")
"""Messages of compute-sanitizer where it cannot instrument; no kernel finding."""
NOT_STARTED_MESSAGES = ("terminated before first instrumented API call", "No attachable process found")
"""Messages on a program that did nothing.

Where the program wrote no line either, the tool could not start it.
"""
DEPRECATION_NOTICE = "Option kernel-regex is deprecated"
"""Notice of toolkits with --kernel-name; older ones only have --kernel-regex."""

UNCACHED_MEMORY = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
"""Environment in which each tensor is an allocation of its own.

Inside a cached block of 2 MiB no access is out of bounds.
"""

CHECKED_KERNELS = ("_skinny", "_gemm", "flash_decode", "_rmsnorm", "_rotary", "_swiglu", "_read", "_empty", "gemv")
"""Our kernels, by parts of their launched names.

Instrumenting torch's kernels too would take the step's time.
"""
CONTROL_KERNEL = "_control_sum"
"""Plain `tl.sum` across warps, sound by construction: its hazards are the tool's."""
PLANTED_KERNELS = ("_fill", "race")
"""Kernels of the planted faults.

They pass the same filter as our kernels, so a filter that blocks every kernel is noticed.
"""

TOOL_OPTIONS = {
    "memcheck": ("--report-api-errors", "no", "--print-limit", "100"),
    "racecheck": ("--racecheck-report", "analysis", "--print-limit", "10000"),
}
"""Options by tool.

Libraries ask the driver for functions that it lacks and go on. Such API errors are no errors of our kernels.
"""

LOG_FOLDER = "logs"
"""Folder in OUT for the tools' logs, which stay when the step is ended."""
PLANTED_SHARE = 0.4
"""Largest share of the step's time for the planted fault.

Most of it is Python and torch starting under the tool.
"""
READ_SECONDS = 3.0
GRACE_SECONDS = 4.0
"""Seconds from interrupt to kill; shorter than the gate's, so no child is left."""

_RACE_TITLE = re.compile(r"(?:(?:Error|Warning): )?Race reported between ", re.IGNORECASE)
_ACCESS = re.compile(r"(Read|Write) access at (?:0x[0-9a-f]+ in (?:\S+:\d+:)?)?(?:void )?([^\s+(<]+)")
_KERNEL_AT = re.compile(r"at (?:0x[0-9a-f]+ in (?:\S+:\d+:)?)?(?:void )?([^\s+(<]+)")
_RESULT = re.compile(r"(right|wrong|not run|refused): (.*)")


@dataclass(frozen=True)
class Finding:
    """Record of the tool.

    Attributes:
        kernel: name of the kernel.
        title: first line of the record, in the tool's own words.
        hazards: number of bytes or pairs of threads by racecheck; 1 by memcheck.
        reads: whether one of the accesses reads; otherwise write-after-write.
    """

    kernel: str
    title: str
    hazards: int = 1
    reads: bool = False


@dataclass(frozen=True)
class SanitizerRun:
    """Run under compute-sanitizer, possibly cut off.

    Attributes:
        findings: records of the tool.
        summarised: whether the tool printed its summary.
        unsupported_reason: why the tool could not instrument; None where it could.
        status: exit status of the program; None where it was ended at its limit.
        limit_seconds: limit of the run.
        results: lines of the exercise on calls that ended, such as `right: triton_read …`.
        calls: number of calls that the exercise announced.
        last_line: last line of the program, a reason where it broke off; for a run ended at its limit, the call that
            had begun.
    """

    findings: tuple[Finding, ...]
    summarised: bool
    unsupported_reason: str | None
    status: int | None
    limit_seconds: float = 0.0
    results: tuple[str, ...] = ()
    calls: int = 0
    last_line: str = ""

    @property
    def wrong(self) -> list[str]:
        """Lines of calls whose result was wrong."""
        return [line for line in self.results if line.startswith("wrong")]

    @property
    def progress(self) -> str:
        """Number of calls that ended, and number announced."""
        return f"{len(self.results)} of {self.calls or '?'} calls ended"


def parse_run(tool_log: str, output: str, status: int | None, limit_seconds: float = 0.0) -> SanitizerRun:
    """Parse the tool's log and the program's output; either may be cut off.

    Lines of the tool begin with `=========`.
    """
    both = f"{tool_log}\n{output}".splitlines()  # a tool that cannot begin writes to the program's output
    lines = [line.removeprefix("=========").strip() for line in both if line.startswith("=========")]
    own = (line.strip() for line in output.splitlines() if not line.startswith(("=========", DEPRECATION_NOTICE)))
    said = [line for line in own if line]
    begun = [line for line in said if line.startswith("begins ")] if status is None else []
    cannot = UNSUPPORTED_MESSAGES if said or status is None else (*UNSUPPORTED_MESSAGES, *NOT_STARTED_MESSAGES)
    announced = next((line for line in said if line.startswith("calls: ")), "calls: 0")
    return SanitizerRun(
        findings=tuple(_racecheck_findings(lines) or _memcheck_findings(lines)),
        summarised=any("SUMMARY:" in line for line in lines),
        unsupported_reason=next((line for line in lines if any(word in line for word in cannot)), None),
        status=status,
        limit_seconds=limit_seconds,
        results=tuple(line for line in said if _RESULT.match(line)),
        calls=int(announced.split()[1]),
        last_line=(begun or said or lines or ["no output"])[-1][:200],
    )


def _memcheck_findings(lines: Sequence[str]) -> list[Finding]:
    """Memcheck's findings: a title, and below it the place in a kernel.

    Errors of the CUDA API have no place.
    """
    return [Finding(place[1], title) for title, below in pairwise(lines) if (place := _KERNEL_AT.match(below))]


def _racecheck_findings(lines: Sequence[str]) -> list[Finding]:
    """Racecheck's findings: a title, and below it further accesses with hazards."""
    records: list[list[str]] = []
    inside = False
    for line in lines:
        if _RACE_TITLE.match(line):
            records.append([line])
        elif inside:
            records[-1].append(line)
        inside = bool(records) and "SUMMARY:" not in line
    return [_racecheck_finding(record) for record in records]


def _racecheck_finding(record: Sequence[str]) -> Finding:
    whole = " ".join(record)
    accesses = _ACCESS.findall(whole)
    hazards = sum(int(count) for count in re.findall(r"\[(\d+) hazards?\]", whole))
    reads = any(kind == "Read" for kind, _ in accesses)
    return Finding(accesses[0][1] if accesses else "unnamed", record[0], max(hazards, 1), reads)


def sanitizer_command(tool: str, log: Path, *arguments: str) -> list[str]:
    """Command of the exercise under a sanitizer tool, which checks only our kernels."""
    sanitizer = find_tool("compute-sanitizer") or "compute-sanitizer"
    ours = [
        word
        for name in (*CHECKED_KERNELS, CONTROL_KERNEL, *PLANTED_KERNELS)
        for word in ("--kernel-regex", f"kne={name}")
    ]
    switches = ["--tool", tool, "--log-file", str(log), *TOOL_OPTIONS[tool], "--target-processes", "application-only"]
    return [sanitizer, *switches, *ours, sys.executable, "-m", "suites.gate.exercise", *arguments]


def run_sanitizer(tool: str, logs: Path, seconds: float, fault: str | None = None) -> SanitizerRun:
    """Run the exercise, or a planted fault, for `seconds` at most.

    The logs are kept and printed.
    """
    limit = max(seconds, 1.0)
    name, arguments = ("faults", ["--fault", fault]) if fault else ("exercise", [])
    log, output = logs / f"{tool}-{name}.log", logs / f"{tool}-{name}.out"
    log.unlink(missing_ok=True)
    status: int | None = None
    with output.open("wb") as written:
        try:
            status = run_limited(
                sanitizer_command(tool, log, *arguments), written, limit, UNCACHED_MEMORY, GRACE_SECONDS
            )
        except KeyboardInterrupt:  # the gate ends this step: findings so far are still reported
            limit = 0.0
    told, said = (path.read_text(errors="replace") if path.exists() else "" for path in (log, output))
    print(f"{said}{told}", flush=True)  # noqa: T201 - a program's output
    return parse_run(told, said, status, limit)


def end_reason(tool: str, sanitizer_run: SanitizerRun) -> str:
    """Reason why a run did not finish: its limit or an interrupt."""
    return (
        f"{tool} did not end within {sanitizer_run.limit_seconds:.0f} s"
        if sanitizer_run.limit_seconds
        else f"{tool} was interrupted"
    )


@dataclass(frozen=True)
class SanitizerCheck:
    """Sanitizer step.

    Attributes:
        tool: memcheck or racecheck.
        fault: planted fault, as `suites.gate.exercise` names it.
        missed_verdict: verdict where the tool finished without reporting the planted fault.
        judge: `judge(planted, ours)` gives the verdict on the exercise, by a tool that reported the planted fault.
    """

    tool: str
    fault: str
    missed_verdict: Verdict
    judge: Callable[[SanitizerRun, SanitizerRun], Verdict]

    def verdict(self, planted: SanitizerRun, ours: SanitizerRun) -> Verdict:
        """Verdict on both runs; a missed planted fault voids the run of our kernels."""
        return self.missed_fault(planted) or self._blind_to(ours) or self.judge(planted, ours)

    def missed_fault(self, planted: SanitizerRun) -> Verdict | None:
        """Verdict where the tool missed the planted fault, else None."""
        if verdict := self._blind_to(planted):
            return verdict
        if planted.findings:
            return None
        if planted.status is None:
            return Verdict("unfinished", f"{end_reason(self.tool, planted)}, at the planted fault: {planted.last_line}")
        return replace(self.missed_verdict, detail=f"{self.missed_verdict.detail}; its last line: {planted.last_line}")

    def _blind_to(self, findings: SanitizerRun) -> Verdict | None:
        cannot = findings.unsupported_reason
        return Verdict("not_run", f"compute-sanitizer cannot instrument here: {cannot}") if cannot else None

    def run_planted(self, out: Path, seconds: float) -> SanitizerRun:
        """Run the planted fault for `seconds` at most."""
        logs = out / LOG_FOLDER
        logs.mkdir(parents=True, exist_ok=True)
        return run_sanitizer(self.tool, logs, seconds - GRACE_SECONDS, self.fault)

    def run(self, asked: Namespace, began: float) -> Verdict:
        """Run the planted fault, which is quick, then the exercise.

        An interim verdict is written between the two runs.
        """
        whole = asked.seconds - READ_SECONDS
        planted = self.run_planted(asked.out, PLANTED_SHARE * whole)
        if verdict := self.missed_fault(planted):
            return verdict
        seen = f"{self.tool} saw the planted fault; it did not come to the end of our kernels"
        write_verdict(Verdict("unfinished", seen, {"planted_errors": len(planted.findings), "wrong": 0}), asked.verdict)
        left = whole - (time.monotonic() - began) - GRACE_SECONDS
        return self.verdict(planted, run_sanitizer(self.tool, asked.out / LOG_FOLDER, left))

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the step and write its verdict."""
        began, asked = time.monotonic(), parse_options(__doc__, argv, seconds=True)
        return write_verdict(self.run(asked, began), asked.verdict)


# memcheck: no access out of bounds, over every kernel of ours at sizes with ragged edges.

MEMCHECK_STEP = Step(
    name="memcheck",
    purpose="compute-sanitizer memcheck over our kernels, and over a planted access out of bounds",
    seconds=150,
    least_seconds=75,
    command=timed_program("memcheck", "sanitizer"),
    tools=("compute-sanitizer",),
)


def judge_memcheck(planted: SanitizerRun, ours: SanitizerRun) -> Verdict:
    """Pass where the exercise ended without an error or a wrong result."""
    kernels = sorted({one.kernel for one in ours.findings})
    figures = {
        "planted_errors": len(planted.findings),
        "errors": len(ours.findings),
        "kernels": kernels,
        "wrong": len(ours.findings) + len(ours.wrong),
        "calls_ended": len(ours.results),
        "calls": ours.calls,
    }
    cut = f"; {end_reason('memcheck', ours)}, {ours.progress}" if ours.status is None else ""
    if ours.findings:
        told = f"{len(ours.findings)} errors in {', '.join(kernels)}; first: {ours.findings[0].title}"
        return Verdict("failed", f"memcheck: {told}{cut}", figures)
    if ours.wrong:
        return Verdict("failed", f"memcheck: {len(ours.wrong)} results wrong; first: {ours.wrong[0]}{cut}", figures)
    if ours.status is None:
        told = f"{ours.progress} without an error; the planted fault was seen; last line: {ours.last_line}"
        return Verdict("unfinished", f"{end_reason('memcheck', ours)}: {told}", figures)
    if ours.status or not ours.summarised:
        told = (
            f"the exercise of our kernels ended with status {ours.status}, {ours.progress}; last line: {ours.last_line}"
        )
        return Verdict("failed", f"memcheck: {told}", figures)
    return Verdict("passed", f"memcheck: the planted fault was seen, no error in our kernels, {ours.progress}", figures)


MEMCHECK = SanitizerCheck(
    tool="memcheck",
    fault="out_of_bounds",
    missed_verdict=Verdict(
        "failed", "memcheck did not see the planted fault, so its silence on our kernels means nothing"
    ),
    judge=judge_memcheck,
)


# planted: a store out of bounds that compute-sanitizer has to report on this machine.

PLANTED_STEP = Step(
    name="planted",
    purpose="a planted access out of bounds under compute-sanitizer: is it seen",
    seconds=20,
    least_seconds=10,
    command=timed_program("planted", "sanitizer"),
    tools=("compute-sanitizer",),
    memory_gib=1.0,
)


def judge_planted(planted: SanitizerRun) -> Verdict:
    """Pass where memcheck reported the fault."""
    figures = {"planted_errors": len(planted.findings)}
    return MEMCHECK.missed_fault(planted) or Verdict("passed", f"memcheck saw it: {planted.findings[0].title}", figures)


def main_planted(argv: Sequence[str] | None = None) -> int:
    """Run the planted fault under memcheck and write the verdict."""
    asked = parse_options(__doc__, argv, seconds=True)
    return write_verdict(judge_planted(MEMCHECK.run_planted(asked.out, asked.seconds - READ_SECONDS)), asked.verdict)


# racecheck: hazards in shared memory by kernel, reported beside a control and not judged.
#
# Racecheck reports write-after-write where warps that hold the same value all store it. Triton's reductions across
# warps do so, and it is no race. The control is only such a reduction, so a kernel with hazards of that kind alone is
# as sound as `tl.sum`.

RACECHECK_STEP = Step(
    name="racecheck",
    purpose="compute-sanitizer racecheck: hazards by kernel beside a plain tl.sum, reported only, and a planted race",
    seconds=150,
    least_seconds=75,
    command=timed_program("racecheck", "sanitizer"),
    packages=(*TORCH_PACKAGES, "cupy"),
    tools=("compute-sanitizer",),
)


def hazards_by_kernel(found: Iterable[Finding]) -> dict[str, dict[str, int]]:
    """Hazards and records of each kernel, and its hazards that involve a read."""
    kernels: dict[str, dict[str, int]] = {}
    for one in found:
        row = kernels.setdefault(one.kernel, {"hazards": 0, "with_reads": 0, "records": 0})
        row["hazards"] += one.hazards
        row["with_reads"] += one.hazards if one.reads else 0
        row["records"] += 1
    return kernels


def judge_racecheck(planted: SanitizerRun, ours: SanitizerRun) -> Verdict:
    """Pass at the end of the exercise; fail for a wrong result, never for a hazard."""
    hazards = hazards_by_kernel(ours.findings)
    control = hazards.pop(CONTROL_KERNEL, None)
    figures: dict[str, Any] = {
        "planted_errors": len(planted.findings),
        "hazards": hazards,
        "control": control,
        "wrong": len(ours.wrong),
        "calls_ended": len(ours.results),
        "calls": ours.calls,
    }
    rows = [f"{name} {_hazard_text(row)}" for name, row in sorted(hazards.items())]
    ran = any(CONTROL_KERNEL.strip("_") in line for line in ours.results)
    beside = f"hazards, reported only: {', '.join(rows) or 'none'}; the control tl.sum: "
    beside += _hazard_text(control) if control else "none" if ran else "not run"
    told = f"the planted race was seen; {beside}; {ours.progress}"
    if ours.wrong:
        return Verdict("failed", f"racecheck: {len(ours.wrong)} results wrong; first: {ours.wrong[0]}; {told}", figures)
    if ours.status is None:
        return Verdict("unfinished", f"{end_reason('racecheck', ours)}: {told}; last line: {ours.last_line}", figures)
    if ours.status or not ours.summarised:
        broke = f"the exercise ended with status {ours.status}; last line: {ours.last_line}"
        return Verdict("unfinished", f"racecheck: {broke}; {told}", figures)
    return Verdict("passed", f"racecheck: {told}", figures)


def _hazard_text(row: dict[str, int]) -> str:
    return f"{row['hazards']} ({row['with_reads']} with reads)" if row["with_reads"] else f"{row['hazards']}"


RACECHECK = SanitizerCheck(
    tool="racecheck",
    fault="race",
    missed_verdict=Verdict("not_run", "racecheck did not see the planted race: says nothing"),
    judge=judge_racecheck,
)


if __name__ == "__main__":
    sys.exit(run_step({"memcheck": MEMCHECK.main, "racecheck": RACECHECK.main, "planted": main_planted}))
