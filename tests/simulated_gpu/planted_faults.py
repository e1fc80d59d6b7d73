"""Faults that the dry run has to find: each replaces a piece of the product in every simulated process.

A plant is undone by nothing: it holds for the process. `sign` is what the problem it causes says of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Part = Literal[
    "evidence", "smoke", "planned", "hanging_tool", "killed_step", "same_twice", "cold_start", "capped",
    "little_memory", "fault",
]  # fmt: skip
Hook = Callable[[Any], None]


@dataclass(frozen=True)
class PlantedFault:
    """One fault.

    Attributes:
        text: one line for `PLANT=list`.
        parts: of the dry run, those that can see it.
        sign: stands in the problem that it causes.
        hooks: what to do to a module right after its import.
        steps: of the gate's evidence, those that can see it; all where there are none.
    """

    text: str
    parts: tuple[Part, ...]
    sign: str
    hooks: Mapping[str, Hook]
    steps: tuple[str, ...] = ()


def _specialise_in_capture(module: Any) -> None:
    start = module._launch_checked

    def anew(x: Any, weight: Any, out: Any, sizes: Any, config: Any, *others: Any, **more: Any) -> None:
        import torch

        if torch.cuda.is_current_stream_capturing():
            config = config._replace(stages=config.stages + 1)
        start(x, weight, out, sizes, config, *others, **more)

    module._launch_checked = anew


def _wait_in_call(module: Any) -> None:
    start = module._launch_checked

    def waiting(*operands: Any, **more: Any) -> None:
        import torch

        start(*operands, **more)
        torch.cuda.synchronize()

    module._launch_checked = waiting


def _break_source(module: Any) -> None:
    module._read._unsafe_update_src(module._read.src.replace("tl.sum(", "tl.no_such_function("))


def _ask_for_too_much(module: Any) -> None:
    recorded = module.read_records

    def deeper(*args: Any, **more: Any) -> Any:
        found = recorded(*args, **more)
        tiles = [
            one for one in found if one["kernel"].endswith(":_gemm") and one["arguments"]["x"]["pointer"] == "bf16"
        ]
        deep = max(tiles, key=lambda one: one["arguments"]["ROWS"]["value"] * one["arguments"]["DEPTH"]["value"])
        arguments = {**deep["arguments"], "STAGES": {"value": 16}}
        return [*found, {**deep, "arguments": arguments, "options": {**deep["options"], "num_stages": 16}}]

    module.read_records = deeper


def _idle_in_visits(module: Any) -> None:
    visit = module.KernelBench.visit

    def slow(*args: Any) -> Any:
        import time

        time.sleep(5.0)  # virtual seconds
        return visit(*args)

    module.KernelBench.visit = slow


def _leave_loose_files(module: Any) -> None:
    finish = module.finish_archive

    def littering(place: Any) -> None:
        finish(place)
        for number in range(9):
            (place.out / f"loose-{number}.json").write_text("{}")

    module.finish_archive = littering


def _shout_at_limits(module: Any) -> None:
    module.wrong_result_alerts = lambda results: [
        f"!!! WRONG RESULTS in {one.step} !!!" for one in results if one.outcome != "passed"
    ]


def _leave_no_verdict(module: Any) -> None:
    leave = module.write_verdict
    module.write_verdict = lambda verdict, path: 1 if verdict.outcome == "unfinished" else leave(verdict, path)


def _import_what_is_missing(_module: Any) -> None:
    import_module("altair")


def _time_one_graph(module: Any) -> None:
    timed = module._event_milliseconds

    def shorts(parts: Any, *others: Any) -> list[float]:
        spans: list[float] = timed(parts, *others)
        return [span for short in spans[::2] for span in (short, 2 * short)] if len(spans) > 1 else spans

    module._event_milliseconds = shorts


def _stay_on_one_copy(module: Any) -> None:
    visit = module.KernelBench.visit

    def hot(self: Any, entry: Any, share: float) -> Any:
        entry.copies = 1
        return visit(self, entry, share)

    module.KernelBench.visit = hot


def _ignore_ramp(module: Any) -> None:
    module.SteadyClock.settle = lambda _self, _chunk, read: read()
    module.moved = lambda _before, _after: False


def _hide_clocks(module: Any) -> None:
    read = module.read_load

    def hidden() -> Any:
        _, figures = read()
        return False, figures and {**figures, "sm_mhz": 1980.0}

    module.read_load = hidden


def _forget_crash(module: Any) -> None:
    module.CaseState.skip = lambda _self, _reason, _before: None


PLANTED_FAULTS: dict[str, PlantedFault] = {
    "launch-in-capture": PlantedFault(
        "a kernel's first launch is inside a graph capture",
        ("evidence",),
        "first launch is inside a graph capture",
        {"kernels.skinny": _specialise_in_capture},
        steps=("suite",),
    ),
    "wait-in-capture": PlantedFault(
        "a call waits for the device, also inside a graph capture",
        ("evidence",),
        "waits for the device inside a graph capture",
        {"kernels.skinny": _wait_in_call},
        steps=("suite",),
    ),
    "compile-error": PlantedFault(
        "a kernel does not compile",
        ("evidence",),
        "does not compile",
        {"kernels.ceilings": _break_source},
        steps=("warm",),
    ),
    "shared-memory": PlantedFault(
        "a configuration asks for more shared memory than a block has",
        ("evidence",),
        "bytes of shared memory",
        {"suites.gate.launches": _ask_for_too_much},
        steps=("warm",),
    ),
    "over-grant": PlantedFault(
        "visits take longer than the gate grants",
        ("evidence",),
        "the gate grants",
        {"suites.probes.kernel": _idle_in_visits},
        steps=("suite",),
    ),
    "loose-files": PlantedFault(
        "OUT holds more than 8 files",
        ("evidence",),
        "files, at most",
        {"suites.gate.runner": _leave_loose_files},
        steps=("table",),
    ),
    "missing-import": PlantedFault(
        "a GPU test imports what the machine lacks",
        ("evidence",),
        "correctness: ",
        {"tests.gpu.arrival_protocol": _import_what_is_missing},
        steps=("correctness",),
    ),
    "shout-at-limit": PlantedFault(
        "a step that was ended at its limit shouts about results",
        ("killed_step",),
        "shouts",
        {"suites.gate.command": _shout_at_limits},
    ),
    "no-verdict": PlantedFault(
        "a tool that hangs leaves its step without a verdict",
        ("hanging_tool",),
        "hanging tool",
        {"suites.gate.step": _leave_no_verdict},
    ),
    "timer-one-graph": PlantedFault(
        "the timer divides T(n) by n, with a graph's start in it",
        ("cold_start",),
        "truth: ",
        {"kernels.timing.cuda": _time_one_graph},
    ),
    "timer-one-copy": PlantedFault(
        "cold cases are timed on one copy of their weights",
        ("cold_start",),
        "truth: ",
        {"suites.probes.kernel": _stay_on_one_copy},
    ),
    "timer-no-ramp": PlantedFault(
        "the timer takes samples while the clock goes up",
        ("cold_start",),
        "truth: ",
        {"kernels.timing.cuda": _ignore_ramp},
    ),
    "clocks-unseen": PlantedFault(
        "a clock that is held back goes without a label",
        ("capped",),
        "power cap: ",
        {"kernels.timing.device": _hide_clocks},
    ),
    "crash-again": PlantedFault(
        "--resume tries the case again that crashed",
        ("fault",),
        "GPU fault: ",
        {"suites.case": _forget_crash},
    ),
}
