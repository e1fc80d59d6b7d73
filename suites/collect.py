"""Plan of a run: every case, known before any is measured."""

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Protocol

import pytest

from comm.collective import Collective
from kernels.kernel import Kernel
from kernels.timing.device import Device
from specs.parallel import Deployment
from suites.case import CaseState, CollectiveRunConfig, RunConfig, StepRunConfig
from suites.probes.collective import plan_collective_case
from suites.probes.kernel import plan_kernel_case
from suites.probes.late_ranks import InStepAllReduce, plan_in_step_case
from suites.probes.model import plan_step_case
from suites.probes.share import Share, plan_share_case
from suites.workers.launcher import RankPlan

Probe = Kernel | Collective | InStepAllReduce | Deployment | Share


class Measure(Protocol):
    """The `measure` fixture of bench functions."""

    def __call__(
        self,
        probe: Probe,
        question: str,
        how: RunConfig | CollectiveRunConfig | StepRunConfig,
        part: Any = None,
        **shape: int,
    ) -> None:
        """Measure a kernel, collective, all-reduce in the step, whole model or share for pytest-benchmark.

        Args:
            probe: object to measure; for a whole model its deployment.
            question: table of the case.
            how: axes of the case.
            part: source of the shape: a `Shard` for a kernel, the model's message for a collective, the workload of a
                whole model.
            shape: a kernel's arguments of `inputs`; a collective's `message_bytes`, `source` and `target`.
        """


def collect_case(item: pytest.Function, device: Device, ranks: RankPlan) -> CaseState:
    """Call a bench function with a `measure` that only plans its case.

    Raises:
        pytest.UsageError: the function needs other fixtures, or calls `measure` never or more than once.
    """
    noted: list[CaseState] = []

    def note(probe: Probe, question: str, how: Any, part: Any = None, **shape: int) -> None:
        if isinstance(probe, Share):
            noted.append(plan_share_case(item.nodeid, device, ranks, probe, question, how))
        elif isinstance(probe, InStepAllReduce):
            noted.append(plan_in_step_case(item.nodeid, ranks, probe, question, how))
        elif isinstance(probe, Deployment):
            noted.append(plan_step_case(item.nodeid, device, ranks, probe, question, how, part))
        elif isinstance(probe, Collective):
            noted.append(plan_collective_case(item.nodeid, ranks, probe, question, how, part, **shape))
        else:
            noted.append(plan_kernel_case(item.nodeid, device, probe, question, how, part, shape))

    params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    others = set(item.fixturenames) - set(params) - {"measure", "benchmark", "request"}
    if others:
        raise pytest.UsageError(f"{item.nodeid}: a bench function takes `measure` and parameters, not {sorted(others)}")
    call: Callable[..., None] = item.obj
    call(measure=note, **params)
    if len(noted) != 1:
        raise pytest.UsageError(f"{item.nodeid}: calls `measure` {len(noted)} times; one case has one call")
    entry = noted[0]
    entry.labels = {
        "name": item.name,
        "fullname": item.nodeid,
        "group": entry.case.question,
        "param": item.callspec.id if params else None,
        "params": {name: str(one) if is_dataclass(one) else one for name, one in params.items()} or None,  # for JSON
    }
    return entry
