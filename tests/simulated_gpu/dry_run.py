"""`make dry-gpu`: what a GPU would run, on the simulated one; `build/dry-gpu.json` says what was found.

The gate's evidence and its smoke test run as a user starts them, over stand-ins of NVIDIA's tools. All of
`pytest suites/` is planned and bound. The other parts are runs under one fault or disturbance each: `parts` lists them.
Every problem is one line. A planted fault (`PLANT=name`) must come out as a problem that names what it breaks.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kernels.triton_utils import missing_triton
from suites.gate import launches
from suites.gate.command import EVIDENCE, SMOKE
from suites.gate.runner import OWNER_MARK, why_not_ours
from suites.gate.step import planned_seconds
from tests.simulated_gpu import estimates, truth
from tests.simulated_gpu.hardware import Weather
from tests.simulated_gpu.planted_faults import PLANTED_FAULTS, Part
from tests.simulated_gpu.process import Settings, read_notes

ROOT = Path(__file__).parents[2]
CACHES = ROOT / "build"
ARCH = "sm_90"
MOST_FILES = 8
"""In OUT: what comes back from a machine that is lent."""
SLOWDOWN = 15.0
"""Real seconds that a step may take here, for each that it is granted on a GPU: two cores do what sixteen do there."""
AT_ONCE = 3
"""Parts that run at once: some of them wait most of the time."""
HANGING_SECONDS = 6
NOISE = Weather(jitter=0.003, drift=0.003)
"""Relative spread between graph replays, and of what a visit shares."""
NOISY_RUNS = 3
"""The first is compared with each of the others."""
MOST_FALSE = 0.01
"""Share of equal cases that may be called different."""
CAPPED = Weather(throttled=tuple((at, at + 0.25, 1500.0) for at in (0.4, 1.1, 1.9, 2.6, 3.4, 4.2, 5.0, 6.0, 7.0, 8.0)))
"""A power cap comes and goes."""
LITTLE_BYTES = 2**30
"""GPU memory that is free in the part with little of it."""
SELECTED = ("suites/bench_linears.py", "suites/bench_ceilings.py")
AXES = ("--model", "llama-3-70b", "--tp", "8", "--tokens", "1,16", "--impl", "torch,triton", "--layer", "o,gate_up")


@dataclass
class DryRunResult:
    """What the dry run has found so far.

    Attributes:
        problems: one line each.
        steps: of the gate, with estimated and granted seconds.
        truth: cases, how many were within 1 %; equal cases compared, and verdicts that called them different.
        planned: cases of `pytest suites/` that were planned, and their kernels bound and keyed.
    """

    problems: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    truth: dict[str, Any] = field(
        default_factory=lambda: {"cases": 0, "within_1_percent": 0, "compared": 0, "false_verdicts": 0}
    )
    planned: int = 0

    def expect(self, holds: object, problem: str) -> None:
        """Note a problem where something does not hold."""
        if not holds:
            self.problems.append(problem)

    def write(self, path: Path, plant: str) -> None:
        """The file that CI and people read."""
        path.write_text(
            json.dumps({"plant": plant or None, **vars(self), "assumed": estimates.ASSUMED}, indent=1) + "\n"
        )


class DryRun:
    """One dry run.

    Args:
        folder: of all that is written, made anew.
        plant: a planted fault; empty for none.
    """

    def __init__(self, folder: Path, plant: str) -> None:
        self.folder, self.plant, self.found = folder, plant, DryRunResult()
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "bin").mkdir(parents=True)
        (folder / OWNER_MARK).touch()
        for name in ("ncu", "compute-sanitizer"):
            tool = folder / "bin" / name
            tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent / "tools.py"}" {name} "$@"\n')
            tool.chmod(0o755)

    def run(self, name: str, command: Sequence[str], settings: Settings | None = None, **more: str) -> tuple[int, str]:
        """Exit status and output of a simulated process; its notes lie in a folder of its name."""
        told = settings or self.settings(name)
        Path(told.folder).mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **told.environment(), **more}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each of many processes would compile torch's modules anew
        environment["PYTHONPYCACHEPREFIX"] = str(CACHES / "dry-gpu-pycache")
        environment["TRITON_CACHE_DIR"] = str(CACHES / "dry-gpu-triton")  # no assembler ran
        environment["PATH"] = os.pathsep.join([str(self.folder / "bin"), environment["PATH"]])
        done = subprocess.run(
            list(command), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        (self.folder / f"{name}.log").write_text(done.stdout)
        return done.returncode, done.stdout

    def settings(self, name: str, **more: Any) -> Settings:
        """Those of a process, which notes into a folder of its own."""
        return Settings(**{"folder": str(self.folder / name), "plant": self.plant, **more})

    def one_core_is_free(self) -> bool:
        """Whether the gate is past its first two steps, which take all cores; a step behind them takes one."""
        gate = self.folder / "out" / "gate.json"
        return gate.exists() and len(json.loads(gate.read_text())["steps"]) >= 2

    # ---- parts, each of which notes its problems

    def evidence(self) -> None:
        """The gate's evidence: every step passes, few files are left, and estimates are within what is granted."""
        out, budget = self.folder / "out", EVIDENCE.budget_seconds
        command = [sys.executable, "-m", "suites.gate", "--out", str(out), "--budget", str(budget)]
        only = PLANTED_FAULTS[self.plant].steps if self.plant else ()
        command += ["--only", ",".join(only)] if only else []
        status, _ = self.run("gate", command, self.settings("gate", slowdown=SLOWDOWN))
        gate = out / "gate.json"
        self.found.expect(gate.exists(), f"evidence: the gate left no gate.json and ended with status {status}")
        if not gate.exists():
            return
        notes = read_notes(self.folder / "gate")
        results = {one["step"]: one for one in json.loads(gate.read_text())["steps"]}
        grants = {
            name: seconds for name, seconds in planned_seconds(EVIDENCE, budget).items() if not only or name in only
        }
        self.found.steps = estimates.steps(results, notes, grants)
        for step in self.found.steps:
            name, taken = step["step"], step["estimated_seconds"]
            self.found.expect(step["status"] == "passed", f"{name}: {step['status']}: {results[name]['detail']}")
            self.found.expect(
                taken <= step["granted_seconds"],
                f"{name}: needs {taken:.0f} s, the gate grants {step['granted_seconds']:.0f}",
            )
        self.found.problems += [
            f"{note['step'] or 'start'}: {note['text']}" for note in notes if note["kind"] == "fault"
        ]
        files = [path for path in out.rglob("*") if path.is_file()]
        self.found.expect(len(files) <= MOST_FILES, f"OUT: {len(files)} files, at most {MOST_FILES} come back")
        failed = results.get("warm", {}).get("figures", {}).get("failed", ())
        self.found.problems += [f"warm: a launch does not compile: {reason}" for reason in failed]
        self._check_launches(notes)
        if not only:
            self._check_truth([path for path in files if path.name.startswith("h200")], notes)

    def _check_launches(self, notes: Sequence[Mapping[str, Any]]) -> None:
        first = {note["code"]: note for note in notes if note["kind"] == "launch"}
        recorded = {json.dumps(one, sort_keys=True) for one in launches.read_records(ARCH)}
        missing = [one for one in first.values() if json.dumps(one["record"], sort_keys=True) not in recorded]
        names = ", ".join(sorted({one["kernel"] for one in missing}))
        self.found.expect(
            not missing,
            f"warm: {len(missing)} launches ({names}) are not in suites/gate/launches/{ARCH}.json: "
            "make dry-gpu RECORD=1",
        )

    def _check_truth(self, files: Sequence[Path], notes: Sequence[Mapping[str, Any]]) -> None:
        self.found.expect(len(files) == 2, f"OUT: {len(files)} result files instead of the suite's and the layers'")
        judged = [one for path in files for one in truth.judge(path, notes)]
        close = [one for one in judged if abs(one.off) <= truth.CLOSE]
        self.found.truth |= {"cases": len(judged), "within_1_percent": len(close)}
        self.found.expect(judged, "truth: no case was measured")
        self.found.problems += [f"truth: {one}" for one in judged if one not in close]

    def smoke(self) -> None:
        """The first call on a GPU: every step passes."""
        out = self.folder / "smoke-out"
        command = [sys.executable, "-m", "suites.gate", "--profile", "smoke", "--out", str(out)]
        self.run("smoke", command, self.settings("smoke", slowdown=SLOWDOWN))
        results = json.loads((out / "gate.json").read_text())["steps"]
        self.found.expect(len(results) == len(SMOKE.steps), f"smoke: {len(results)} steps of {len(SMOKE.steps)}")
        for one in results:
            self.found.expect(one["outcome"] == "passed", f"smoke: {one['step']}: {one['outcome']}: {one['detail']}")

    def planned(self) -> None:
        """All of `pytest suites/` by its own defaults: each case is planned, its kernel bound and keyed."""
        command = [sys.executable, "-m", "pytest", "suites/", "-q"]
        _, output = self.run("planned", command, self.settings("planned", share=0.0, passes=1))
        notes = read_notes(self.folder / "planned")
        bound = {note["case"] for note in notes if note["kind"] == "truth"}
        self.found.planned = len(bound)
        sound = "nothing was measured" in output and not re.search(r"\d+ (failed|error)|INTERNALERROR", output)
        self.found.expect(sound, f"pytest suites/: {' '.join(output.splitlines()[-3:])}")
        self.found.expect(bound, "pytest suites/: no case was bound")
        self.found.problems += [f"pytest suites/: {note['text']}" for note in notes if note["kind"] == "fault"]

    def hanging_tool(self) -> None:
        """A profiler that never ends: its step still says so, in time."""
        verdict = self.folder / "hanging.json"
        limits = ["--out", str(self.folder), "--verdict", str(verdict), "--seconds", str(HANGING_SECONDS)]
        command = [sys.executable, "-m", "suites.gate.dram", "--step", "dram", *limits]
        status, _ = self.run("hanging", command, SHARDBENCH_SIMULATED_TOOL="hangs")
        outcome = json.loads(verdict.read_text())["outcome"] if verdict.exists() else "no verdict"
        self.found.expect(
            outcome == "unfinished", f"hanging tool: ncu hung, and the dram step left {outcome} ({status})"
        )

    def killed_step(self) -> None:
        """A step that does not end: it is called unfinished, and nobody is told of wrong results."""
        out = self.folder / "killed"
        command = [sys.executable, "-m", "suites.gate", "--only", "arrival", "--budget", "16", "--out", str(out)]
        _, output = self.run("killed-step", command, SHARDBENCH_SIMULATED_TESTS="hang")
        (result,) = json.loads((out / "gate.json").read_text())["steps"]
        self.found.expect(
            result["outcome"] == "unfinished",
            f"killed step: {result['outcome']} instead of unfinished: {result['detail']}",
        )
        self.found.expect("!!!" not in output, "killed step: a step that was ended at its limit shouts about results")

    def same_twice(self) -> None:
        """Runs that differ in nothing but noise: hardly a verdict."""
        files = [str(self._suites(f"noise-{seed}", replace(NOISE, seed=seed))) for seed in range(1, 1 + NOISY_RUNS)]
        _, told = self.run("compare", [sys.executable, "-m", "reports", "compare", *files, "--format", "json"])
        cases = [one["verdict"] for one in json.loads(told[told.index("{") :])["cases"]]
        false = sum(verdict in ("faster", "slower") for verdict in cases)
        self.found.truth |= {"compared": len(cases), "false_verdicts": false}
        self.found.expect(cases, "same twice: nothing was compared")
        most = MOST_FALSE * len(cases)
        self.found.expect(false <= most, f"same twice: {false} of {len(cases)} equal cases called different")

    def cold_start(self) -> None:
        """A GPU whose clock goes down as soon as it idles, one pass: every visit has to bring it up again."""
        path = self._suites("cold-start", Weather(), passes=1, cool_seconds=1e-3)
        judged = truth.judge(path, read_notes(self.folder / "cold-start"))
        self.found.expect(judged, "truth: nothing was measured from a cold start")
        self.found.problems += [f"truth: cold start: {one}" for one in judged if abs(one.off) > truth.CLOSE]
        self.found.problems += [f"cold start: labelled on a quiet GPU: {one}" for one in judged if one.labelled]

    def capped(self) -> None:
        """A power cap comes and goes: no case that it changed goes without a label."""
        path = self._suites("capped", CAPPED)
        judged = truth.judge(path, read_notes(self.folder / "capped"))
        unlabelled = [one for one in judged if abs(one.off) > truth.CLOSE and not one.labelled]
        self.found.expect(any(one.labelled for one in judged), "power cap: no case is labelled")
        self.found.problems += [f"power cap: no label: {one}" for one in unlabelled]

    def little_memory(self) -> None:
        """1 GiB is free: what fits is measured and says how little it rotates, what does not fit is named."""
        path = self._suites("little-memory", Weather(), passes=1, free_bytes=LITTLE_BYTES)
        whole = json.loads(path.read_text())
        failed = [f"{one['case']}: {one['reason']}" for one in whole["shardbench"]["failed"]]
        caches = {one["extra_info"]["cache"] for one in whole["benchmarks"] if one["extra_info"]["op"] == "linear"}
        self.found.expect(failed, "little memory: everything fits into 1 GiB")
        self.found.problems += [f"little memory: {one}" for one in failed if "out of memory" not in one]
        self.found.expect(
            caches and not caches & set(truth.COLD), f"little memory: caches called {', '.join(sorted(caches))}"
        )

    def fault(self) -> None:
        """A CUDA fault in one case: it is named, and the others are measured in the next process."""
        struck = "gate_up-16tok-bf16-cold-graph-triton"
        for again in ((), ("--resume",)):
            path = self._suites("fault", Weather(), *again, passes=1, fault_in=struck)
        whole = json.loads(path.read_text()) if path.exists() else {"shardbench": {"failed": []}, "benchmarks": []}
        failed = [one["case"] for one in whole["shardbench"]["failed"]]
        named = len(failed) == 1 and struck in failed[0]
        self.found.expect(named, f"GPU fault: {len(failed)} cases failed instead of the one that crashed")
        self.found.expect(len(whole["benchmarks"]) > 1, "GPU fault: no case was measured after it")

    def _suites(self, name: str, weather: Weather, *options: str, **more: Any) -> Path:
        """The result file of a few cases, all of them measured through."""
        path = self.folder / f"{name}.json"
        command = [sys.executable, "-m", "pytest", *SELECTED, *AXES, f"--benchmark-json={path}", "-q", *options]
        self.run(name, command, self.settings(name, weather=weather, share=1.0, **more))
        return path


def parts(run: DryRun) -> dict[Part, Callable[[], None]]:
    """The parts by name; the first takes longest."""
    return {
        "evidence": run.evidence,
        "smoke": run.smoke,
        "planned": run.planned,
        "hanging_tool": run.hanging_tool,
        "killed_step": run.killed_step,
        "same_twice": run.same_twice,
        "cold_start": run.cold_start,
        "capped": run.capped,
        "little_memory": run.little_memory,
        "fault": run.fault,
    }


def guarded(run: DryRun, name: str, part: Callable[[], None]) -> None:
    """Run a part; whatever it dies of is a problem, and ends no other."""
    try:
        part()
    except Exception as error:
        run.found.problems.append(f"{name}: the dry run itself failed: {type(error).__name__}: {error}")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 without a problem; 1 with one; 2 for an unknown plant; 3 for a plant that was not found."""
    parser = argparse.ArgumentParser(prog="make dry-gpu", description=__doc__)
    parser.add_argument("--plant", default="", help=f"list, or one of {', '.join(PLANTED_FAULTS)}")
    parser.add_argument("--only", default="", metavar="PART,…", help="parts of the dry run; without it all")
    parser.add_argument("--folder", type=Path, default=Path("build/dry-gpu"), help="folder of all that is written")
    parser.add_argument("--record", action="store_true", help="write the launches that were seen for the warm step")
    asked = parser.parse_args(argv)
    if asked.record and (asked.plant or asked.only):
        return refused("RECORD=1 takes a whole run without a planted fault; leave PLANT and --only out")
    if asked.plant == "list":
        say("\n".join(f"{name:<24} {plant.text}" for name, plant in PLANTED_FAULTS.items()))
        return 0
    if asked.plant and asked.plant not in PLANTED_FAULTS:
        return refused(f"PLANT={asked.plant} is unknown; choose one of {', '.join(PLANTED_FAULTS)}")
    if lacking := missing_triton():
        say(f"dry-gpu: not run: it binds each kernel. {lacking}")
        return int(bool(asked.plant))
    if why_not := why_not_ours(asked.folder):
        return refused(why_not)
    began, run = time.monotonic(), DryRun(asked.folder.resolve(), asked.plant)
    wanted = PLANTED_FAULTS[asked.plant].parts if asked.plant else tuple(parts(run))
    wanted = tuple(asked.only.split(",")) if asked.only else wanted
    if unknown := set(wanted) - set(parts(run)):
        return refused(f"--only {','.join(sorted(unknown))} is unknown; choose of {', '.join(parts(run))}")
    first, *others = [(name, part) for name, part in parts(run).items() if name in wanted]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ahead = pool.submit(guarded, run, *first)
        while others and not ahead.done() and not run.one_core_is_free():
            time.sleep(0.5)
        for one in others:
            pool.submit(guarded, run, *one)
    if asked.record and any(one["compiles"] for one in run.found.steps):
        notes = read_notes(run.folder / "gate")
        say(f"wrote {launches.write_records(ARCH, [note['record'] for note in notes if note['kind'] == 'launch'])}")
    found = run.found
    found.write(asked.folder.with_suffix(".json"), asked.plant)
    say(estimates.table(found.steps))
    say(f"pytest suites/: {found.planned} cases planned, their kernels bound and keyed")
    say(f"truth: {found.truth['within_1_percent']} of {found.truth['cases']} cases within 1 %")
    say(f"same twice: {found.truth['false_verdicts']} of {found.truth['compared']} equal cases called different")
    for problem in found.problems:
        say(f"PROBLEM {problem}")
    say(f"{len(found.problems)} problems in {time.monotonic() - began:.0f} s; {asked.folder.with_suffix('.json')}")
    return report(found, asked.plant)


def report(found: DryRunResult, plant: str) -> int:
    """The exit status; a planted fault is named, whether it was found or not."""
    if plant:
        seen = [problem for problem in found.problems if PLANTED_FAULTS[plant].sign in problem]
        say(f"planted {plant}: {seen[0] if seen else 'NOT FOUND'}")
        return 1 if seen else 3
    return int(bool(found.problems))


def refused(reason: str) -> int:
    """The exit status of a call that asks for what is not there."""
    sys.stderr.write(f"make dry-gpu: {reason}\n")
    return 2


def say(text: str) -> None:
    """Print a line of the answer."""
    print(text, flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    sys.exit(main())
