"""compute-sanitizer over the exercise and over a planted fault: a tool that sees no fault proves nothing."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from suites.gate.machine import find_tool
from suites.gate.step import Verdict

CANNOT = ("Device not supported", "device is not supported")
"""What compute-sanitizer says where it cannot instrument, which is no finding about a kernel."""

UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
"""Each tensor an allocation of its own: inside a cached block of 2 MiB no access is out of bounds."""


@dataclass(frozen=True)
class Findings:
    """What a run under compute-sanitizer gave.

    Attributes:
        errors: what its summary counts; None without a summary.
        warnings: hazards that it is less sure of; racecheck only.
        cannot: why it could not instrument; None when it could.
        first: its first finding, in its own words.
        status: exit status of the program.
    """

    errors: int | None
    warnings: int
    cannot: str | None
    first: str
    status: int


def read(text: str, status: int) -> Findings:
    """Read the tool's output, in which its own lines begin with =========."""
    lines = [line.removeprefix("=========").strip() for line in text.splitlines() if line.startswith("=========")]
    told = "\n".join(lines)
    cannot = next((line for line in lines if any(word in line for word in CANNOT)), None)
    first = next((line for line in lines if re.match(r"Invalid |Error: |Warning: |Program hit|Fatal", line)), "")
    if found := re.search(r"RACECHECK SUMMARY: .*\((\d+) errors?, (\d+) warnings?\)", told):
        return Findings(int(found[1]), int(found[2]), cannot, first, status)
    counts = [int(count) for count in re.findall(r"ERROR SUMMARY: (\d+) errors?", told)]
    return Findings(sum(counts) if counts else None, 0, cannot, first, status)


def run(tool: str, module: str, *arguments: str) -> Findings:
    """A program of the gate under one of the sanitizer's tools; its output is passed on."""
    sanitizer = find_tool("compute-sanitizer") or "compute-sanitizer"
    switches = ["--tool", tool, "--print-limit", "20", "--target-processes", "application-only"]
    command = [sanitizer, *switches, sys.executable, "-m", f"suites.gate.{module}", *arguments]
    done = subprocess.run(  # noqa: S603 - NVIDIA's tool on our program
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **UNCACHED},
    )
    print(done.stdout, flush=True)  # noqa: T201 - a program's output
    return read(done.stdout, done.returncode)


def judge(tool: str, planted: Findings, ours: Findings) -> Verdict:
    """Passed when the planted fault was seen, and nothing in our kernels."""
    if reason := planted.cannot or ours.cannot:
        return Verdict("not_run", f"compute-sanitizer cannot instrument here: {reason}")
    if not planted.errors:
        return Verdict("failed", f"{tool} did not see the planted fault, so its silence on our kernels means nothing")
    figures = {"planted_errors": planted.errors, "errors": ours.errors, "warnings": ours.warnings}
    if ours.errors is None or (ours.status and not ours.errors):
        return Verdict("failed", f"{tool}: the exercise of our kernels ended with status {ours.status}", figures)
    if ours.errors:
        return Verdict("failed", f"{tool}: {ours.errors} errors in our kernels; first: {ours.first}", figures)
    warned = f", {ours.warnings} warnings (first: {ours.first})" if ours.warnings else ""
    return Verdict("passed", f"{tool}: the planted fault was seen, no error in our kernels{warned}", figures)


def check(tool: str, fault: str) -> Verdict:
    """The planted fault first: it is quick, and without it the rest is void."""
    planted = run(tool, "faults", fault)
    if planted.cannot or not planted.errors:
        return judge(tool, planted, planted)
    return judge(tool, planted, run(tool, "exercise"))


def main_of(tool: str, fault: str, text: str | None, argv: Sequence[str] | None) -> int:
    """The program of a sanitizer step."""
    from suites.gate.program import leave, options

    asked = options(text, argv)
    return leave(check(tool, fault), asked.verdict)
