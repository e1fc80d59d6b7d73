"""One run of the suites: plan, journal, passes and replay for the pytest plugin."""

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest
import pytest_benchmark
import torch

from kernels.timing.device import current_device
from kernels.timing.nvidia_smi import are_gpus_hidden, find_driver
from specs.measurement import SCHEMA, STEP_OP, Case
from specs.privacy import current_identity
from specs.units import format_bytes
from suites import runner
from suites.case import CaseState
from suites.clock import device_clock
from suites.collect import collect_case
from suites.environment import cpu_name, gpu_sharing_notes, machine_info
from suites.options import read_options
from suites.probes.collective import PATIENCE as RANK_PATIENCE
from suites.probes.collective import CollectiveCaseState, record_nccl_algorithms
from suites.probes.kernel import KernelBench, KernelCaseState
from suites.probes.late_ranks import PATIENCE as IN_STEP_PATIENCE
from suites.probes.late_ranks import CollectiveAndInStepBench, InStepCaseState
from suites.probes.model import PATIENCE as STEP_PATIENCE
from suites.probes.model import StepCaseState
from suites.probes.share import PATIENCE as SHARE_PATIENCE
from suites.probes.share import ShareCaseState, StepAndShareBench
from suites.runner import MIN_PASSES, PassRunner, ProgressLine
from suites.workers.launcher import LaunchedRank, find_transport, plan_ranks, rank_environment, rank_info
from suites.workers.pool import MultiRankBench, WorkerPool
from suites.workers.process import LocalSpawner, RankLostError, Spawner
from suites.workers.remote import LeaderSpawner, run_follower

# Command line that reproduces a run, without paths of this machine


def command_line(
    arguments: Sequence[object],
    root: Path,
    launched: LaunchedRank | None,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Command line of a run, with its launcher.

    Args:
        arguments: pytest's arguments. A path is shortened to the part below the repository's root, or to its last part.
        root: root of the repository, pytest's rootdir.
        launched: this process's rank, if a launcher started several.
        environment: variables; PYTEST_ADDOPTS holds further arguments.
    """
    given = [*shlex.split(environment.get("PYTEST_ADDOPTS", "")), *map(str, arguments)]
    words = [_strip_folders(word, root) for word in given]
    return current_identity().text(f"{_launch_command(launched)} {shlex.join(words)}".rstrip())


def _launch_command(launched: LaunchedRank | None) -> str:
    """Command that starts pytest: on several hosts with each host's number of ranks."""
    if launched is None:
        return "pytest"
    if launched.launcher == "torchrun":
        hosts = -(-launched.ranks // launched.local_ranks)
        nodes = f"--nnodes {hosts} " if hosts > 1 else ""
        return f"torchrun {nodes}--nproc-per-node {launched.local_ranks} -m pytest"
    return f"{launched.launcher} -n {launched.ranks} python -m pytest"


def _strip_folders(word: str, root: Path) -> str:
    """Argument, or value in `--option=value`, without the folders of this machine."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if not equals and option:
        return word
    path, colons, case = value.partition("::")
    if not Path(path).is_absolute():
        return word
    inside = Path(path).is_relative_to(root) and Path(path) != root
    told = str(Path(path).relative_to(root)) if inside else Path(path).name or "."
    folder = "/" if path.endswith("/") else ""
    return f"{option}{equals}{told}{folder}{colons}{case}"


BUSY_CORES = 0.3
MULTI_RANK_STATES = CollectiveCaseState | StepCaseState | ShareCaseState


class Session:
    """State of the plugin from collection to the summary.

    Args:
        config: pytest's configuration.
        items: bench functions that pytest collected, in order.
        json: requested result file.
    """

    def __init__(self, config: pytest.Config, items: Sequence[pytest.Function], json: Path | None) -> None:
        self._config, self._options, self._device = config, read_options(config), current_device()
        self.json = json
        self.journal = runner.journal_path(self.json)
        self.ranks = plan_ranks(self._options.ranks, self._device.kind)
        if self.ranks.launched_rank and self.ranks.kind == "cuda":
            # else every process of a host would use the first GPU
            torch.cuda.set_device(min(self.ranks.launched_rank.local_rank, torch.cuda.device_count() - 1))
        self.plan = [collect_case(item, self._device, self.ranks) for item in items]
        self.entries = {entry.case.name: entry for entry in self.plan}
        self.machine_info = machine_info(self._device) | rank_info(self.ranks)
        self.has_started = self.finished = False
        self.written, self.write_error = False, ""
        self.replayed = 0
        self._command = command_line(config.invocation_params.args, config.rootpath, self.ranks.launched_rank)

    @property
    def runnable(self) -> int:
        """Number of cases that this machine can run."""
        return sum(1 for entry in self.plan if entry.not_run is None)

    @property
    def measured(self) -> int:
        """Number of cases with samples that passed their check."""
        return sum(1 for entry in self.plan if entry.is_measurable and entry.seconds)

    @property
    def recovered_path(self) -> Path:
        """Path of a result file made from the journal."""
        return self.json or self.journal.with_suffix(".json")

    def print_cases(self) -> None:
        """Print each case with its work, and the reason if it cannot run here."""
        line = self._reporter.write_line
        for entry in self.plan:
            work = _work_summary(entry.case)
            line(f"{entry.case.name}: {work}" + (f"; not here: {entry.not_run}" if entry.not_run else ""))
        line(f"{len(self.plan)} cases, {self.runnable} can run here")

    def measure(self) -> None:
        """Run the passes and journal every visit.

        Raises:
            UserError: the journal cannot be written, or belongs to another run.
        """
        kernels = [entry for entry in self.plan if isinstance(entry, KernelCaseState)]
        collectives = [entry for entry in self.plan if isinstance(entry, CollectiveCaseState)]
        steps = [entry for entry in self.plan if isinstance(entry, StepCaseState)]
        shares = [entry for entry in self.plan if isinstance(entry, ShareCaseState)]
        # cases whose results are combined run close together
        models: list[CaseState] = sorted([*steps, *shares], key=lambda entry: entry.case.tokens or 0)
        with ExitStack() as stack:
            workers = stack.enter_context(self._make_pool()) if _any_measurable([*collectives, *models]) else None
            self._begin_journal()
            self.has_started = True
            budgets = self._budgets(kernels, collectives, steps, shares)
            self._print_header(sum(budgets))
            started = monotonic()
            passes = 1 if self._config.option.benchmark_disable else self._options.passes
            progress = ProgressLine(self._reporter, passes or MIN_PASSES)
            run = partial(PassRunner, passes=passes, record=partial(runner.write_case, self.journal), progress=progress)
            if kernels:
                run(kernels, KernelBench(self._device, kernels), budget_seconds=budgets[0]).measure()
            if workers:
                if self.ranks.kind == "cuda":
                    torch.cuda.empty_cache()  # free the kernels' pool: the first GPU's rank may need it
                record_nccl_algorithms(workers, collectives)
                of_ranks: list[tuple[Sequence[CaseState], MultiRankBench]] = [
                    (
                        collectives,
                        CollectiveAndInStepBench(workers, self.ranks, self._device.free_bytes(), collectives),
                    ),
                    (models, StepAndShareBench(workers, self.ranks, models)),
                ]
                for (entries, bench), budget in zip(of_ranks, budgets[1:], strict=True):
                    if _any_measurable(entries):
                        self._record_hosts(workers, bench)
                        run(entries, bench, budget_seconds=budget).measure()
        self.finished = True
        progress.done(f"measured {self.measured} of {self.runnable} cases in {monotonic() - started:.0f} s")

    def follow_leader(self) -> None:
        """Keep one rank for the leading process until it has measured everything.

        Raises:
            UserError: that process cannot be reached, has other cases, or is gone.
        """
        if self.ranks.launched_rank and _any_measurable(
            entry for entry in self.plan if isinstance(entry, MULTI_RANK_STATES)
        ):
            run_follower(
                self.ranks.launched_rank, self._plan_digest(), self._options.rank_timeout, rank_environment(self.ranks)
            )

    def _make_pool(self) -> AbstractContextManager[WorkerPool]:
        timeout, environment = self._options.rank_timeout, rank_environment(self.ranks)
        spawner: Spawner
        if self.ranks.launched_rank:
            spawner = LeaderSpawner(self.ranks.launched_rank, self._plan_digest(), timeout, environment)
        else:
            spawner = LocalSpawner(self.ranks.count, environment)
        return closing(WorkerPool(spawner, self.ranks.kind, timeout))

    def _record_hosts(self, workers: WorkerPool, bench: MultiRankBench) -> None:
        """Record the number of hosts once the ranks have met.

        It is unknown before: a launcher may start several groups on one host.
        """
        with suppress(RankLostError):  # each case reports the error when it is visited
            bench.ensure_started()
            self.machine_info |= {"hosts": workers.hosts, "transport": find_transport(self.ranks, workers.hosts, None)}
            runner.append_record(self.journal, "run", self._header())

    def _plan_digest(self) -> str:
        """Digest of the plan, which must be the same on every rank."""
        of_ranks = [entry for entry in self.plan if isinstance(entry, MULTI_RANK_STATES)]
        told = [(entry.case.name, entry.to_json()) for entry in of_ranks]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def _budgets(
        self,
        kernels: Sequence[CaseState],
        collectives: Sequence[CaseState],
        steps: Sequence[CaseState],
        shares: Sequence[CaseState],
    ) -> tuple[float, ...]:
        """Seconds for kernels, for all collectives, and for whole models with their shares.

        These are the default budgets, scaled to the requested total.
        """
        in_step = [entry for entry in collectives if isinstance(entry, InStepCaseState)]
        alone = [entry for entry in collectives if not isinstance(entry, InStepCaseState)]
        of_ranks = (RANK_PATIENCE, IN_STEP_PATIENCE, STEP_PATIENCE, SHARE_PATIENCE)
        patience = (self._device.limits, *(one[self.ranks.kind] for one in of_ranks))
        kinds: tuple[Sequence[CaseState], ...] = (kernels, alone, in_step, steps, shares)
        usual = [
            one.budget_seconds if _any_measurable(entries) else 0.0
            for entries, one in zip(kinds, patience, strict=True)
        ]
        factor = self._options.budget / sum(usual) if self._options.budget and sum(usual) else 1.0
        return tuple(seconds * factor for seconds in (usual[0], usual[1] + usual[2], usual[3] + usual[4]))

    def replay(self, entry: CaseState, benchmark: Any) -> None:
        """Replay a case's samples into pytest-benchmark."""
        measurement = entry.measurement()
        benchmark.group, benchmark.params = entry.case.question, entry.labels["params"]
        benchmark.extra_info.update(measurement.extra_info())
        device_clock.replay(benchmark, measurement.samples)
        self.replayed += 1

    def outcome(self) -> dict[str, Any]:
        """Content of the `shardbench` block in the result file."""
        return {
            "command": self._command,
            "options": {name: value for name, value in vars(self._options).items() if value},
            "not_run": [{"case": e.case.name, "reason": e.not_run} for e in self.plan if e.not_run is not None],
            "failed": [{"case": e.case.name, "reason": e.failed} for e in self.plan if e.failed is not None],
            "ended": [{"case": e.case.name, "reason": e.error} for e in self.plan if e.error is not None],
        }

    @property
    def _reporter(self) -> Any:
        return self._config.pluginmanager.get_plugin("terminalreporter")

    def _begin_journal(self) -> None:
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        header, say = self._header(), self._reporter.write_line
        if self._options.resume and self.journal.exists():
            resumed = runner.resume_journal(self.journal, header, self.plan)
            say(f"resumed: {resumed.taken} cases have samples in {self.journal}")
            for name, reason in resumed.skipped.items():
                say(f"skipped: {name} ended the run before this one ({reason}); without --resume it is tried again")
            if others := resumed.others:
                say(f"{others} more cases of that journal are not selected now: they stay in it, and out of the JSON")
            return
        if self._options.resume:
            say(f"nothing to resume: there is no {self.journal}; measuring from the start")
        if kept := runner.start_journal(self.journal, header):
            say(f"an earlier run's journal is kept as {kept}")
        for entry in self.plan:
            if entry.not_run is not None:
                runner.write_case(self.journal, entry)

    def _header(self) -> dict[str, Any]:
        hook = self._config.hook
        machine = hook.pytest_benchmark_generate_machine_info(config=self._config)
        hook.pytest_benchmark_update_machine_info(config=self._config, machine_info=machine)
        return {
            "shardbench_schema": SCHEMA,
            "machine_info": machine,
            "commit_info": hook.pytest_benchmark_generate_commit_info(config=self._config),
            "datetime": datetime.now(UTC).isoformat(),
            "version": pytest_benchmark.__version__,
            "command": self._command,
            "options": self.outcome()["options"],
            "planned": [entry.case.name for entry in self.plan],
        }

    def _print_header(self, budget: float) -> None:
        say = self._reporter.write_line
        name = self.machine_info["gpu"] or cpu_name()
        say(f"{name}: {self.runnable} of {len(self.plan)} cases can run here; budget {budget:.0f} s")
        if self._device.kind == "cpu" and are_gpus_hidden() and find_driver():
            say("the GPU is hidden (--device cpu, or CUDA_VISIBLE_DEVICES is empty): the CPU is measured")
        for note in gpu_sharing_notes(self._device, self.machine_info.get("mig")):
            say(note)
        others = psutil.cpu_percent(interval=0.2) / 100 * (psutil.cpu_count() or 1)
        if others > BUSY_CORES:
            say(f"other processes keep {others:.1f} cores busy: expect noise, or end them first")


def _any_measurable(entries: Iterable[CaseState]) -> bool:
    """Return whether any case is measurable."""
    return any(entry.is_measurable for entry in entries)


def _work_summary(case: Case) -> str:
    """Work of one call, for a list of cases."""
    if case.message_bytes is not None:
        return f"{case.ranks} ranks, message {format_bytes(case.message_bytes)}"
    whole = f"{case.ranks} ranks, {case.layers} layers, on the busiest " if case.op == STEP_OP else ""
    return f"{whole}{case.flops / 1e9:.3g} GFLOP, {case.hbm_bytes / 1e6:.3g} MB"
