"""What the result file of the profiled run knows and a profile does not: operations, shapes, bytes, versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reports import files, machine
from reports.files import ResultFile
from specs import layer, measurement
from specs.errors import UserError
from specs.measurement import Case, Measurement

KEPT = (*(name for name in machine.MATTERS if name != "variables"), "sms", "l2_bytes", "gpu_memory_bytes")
"""Facts of a machine that are lent; variables may name hosts."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Run:
    """The cases of a run by name; empty where no file was given."""

    file: ResultFile | None = None
    cases: Mapping[str, Measurement] = field(default_factory=dict)

    def machine(self, seen: Mapping[str, Any]) -> dict[str, Any]:
        """Facts for `machine_info`: the run's, then what the profile saw of the device.

        Raises:
            UserError: the run was on another GPU.
        """
        if self.file is None:
            return dict(seen)
        lent = {name: self.file.machine[name] for name in KEPT if self.file.machine.get(name) is not None}
        if seen.get("gpu") and lent.get("gpu") != seen["gpu"]:
            raise UserError(
                f"{self.file.path}: a run on {machine.name(self.file.machine)}, and the profile is of {seen['gpu']}; "
                "give --run the file that the profiled run itself wrote"
            )
        return lent | {name: value for name, value in seen.items() if value is not None}

    def case(self, name: str, question: str, launch: str, kernel: str) -> Case:
        """The case of this name with all that is known of it: without the run that is little, and no work."""
        known = self.cases.get(name)
        whole_model = known and (known.case.op == measurement.OP or known.case.question == layer.QUESTION)
        if known and not whole_model:  # a step by a profiler would pass for one that was run
            return known.case
        return Case(
            name=name,
            question=question or (known.case.question if known else UNKNOWN),
            op=UNKNOWN,
            implementation=UNKNOWN,
            kernel=kernel,
            dtype=known.case.dtype if known else UNKNOWN,
            flops=0,
            hbm_bytes=0,
            cache=UNKNOWN,
            launch=launch,
        )

    def clock(self, name: str) -> float | None:
        """Seconds a call by our own clock, as the run wrote them."""
        return self.cases[name].median if name in self.cases else None


def load(path: Path | None) -> Run:
    """The file of `--run`.

    Raises:
        UserError: it cannot be read, is a profile itself, or holds published figures.
    """
    if path is None:
        return Run()
    file = files.load(path)
    if file.profiler:
        raise UserError(f"{path}: a profile by {file.profiler}; give --run the file that `pytest suites/` wrote")
    if file.published:
        raise UserError(f"{path}: published figures, no run; give --run the file that `pytest suites/` wrote")
    return Run(file, {one.case.name: one for one in file.measurements})
