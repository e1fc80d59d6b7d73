"""Served runs: TPOT and TTFT of real engines from a CSV, and the planner's figures of each.

The columns are those of the silicon sample in aiconfigurator-core.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from reports.importers.aiconfigurator.command import plan_options, published_file
from reports.importers.aiconfigurator.package import TABLE_FORMATS, TablePackage, find_package
from reports.plan.capacity import max_sequences
from reports.plan.profile import HardwareProfile, build_profile
from reports.plan.query import PlanQuery
from reports.plan.serving import ServedLoad, StepFeatures, step_features
from reports.plan.serving_constants import Group
from reports.plan.step import PartCosts, Variant
from specs.errors import UserError
from specs.gpus import match_gpu
from specs.models import Model, find_model
from specs.parallel import Deployment

SAMPLE = "silicon_sample.csv"
REQUIRED_COLUMNS = (
    *("id", "backend", "model_path", "system", "isl", "osl", "batch_size", "tp_size"),
    *("silicon_ttft_ms", "silicon_tpot_ms"),
)
OPTIONAL_COLUMNS = ("mode", "precision", "gemm_quant_mode", "pp_size", "attention_dp_size")
FORMATS = {theirs: ours for ours, theirs in TABLE_FORMATS.items()} | {"": "bf16", "bf16": "bf16"}
"""Our name of each format; engines state none where they serve the published bf16 weights."""
CALIBRATION_ISL, CALIBRATION_MAX_OSL = 1024, 1024
"""Loads on whose runs constants may be fitted; all other runs are held out."""
MOST = {"isl": 2**20, "osl": 2**20, "batch_size": 2**16, "tp_size": 64}
"""Largest value of each size that a row states."""
ONLY_ONE = {
    "pp_size": "constants are fitted on runs without a pipeline",
    "attention_dp_size": "attention under data parallelism is not planned",
}
"""Widths that may be 1 alone, with the reason."""


@dataclass(frozen=True)
class Run:
    """One served run.

    Attributes:
        id: identity in the CSV.
        engine: vllm, trtllm or sglang.
        gpu: slug of the GPU; the CSV's name where the GPU is unknown.
        model_path: model as the CSV names it.
        model: the model; None where `refused` says why.
        dtype: number format of the linears.
        tp: tensor parallel width.
        load: prompt and new tokens of a request, and sequences at once.
        tpot_ms, ttft_ms: measured times; None where the CSV has no valid time.
        refused: reason why the run is not predicted; empty where it can be.
        may_calibrate: True for a run of the sample that the constants were fitted on, or that they are fitted on now.
    """

    id: str
    engine: str
    gpu: str
    model_path: str
    model: Model | None
    dtype: str
    tp: int
    load: ServedLoad
    tpot_ms: float | None
    ttft_ms: float | None
    refused: str = ""
    may_calibrate: bool = True

    @property
    def group(self) -> Group:
        """Engine, GPU and format, which share constants."""
        return self.engine, self.gpu, self.dtype

    @property
    def calibrates(self) -> bool:
        """True where constants may be fitted on this run."""
        return self.may_calibrate and self.load.isl == CALIBRATION_ISL and self.load.osl <= CALIBRATION_MAX_OSL

    @property
    def used_for(self) -> str:
        """Use of the run: calibration or held-out."""
        return "calibration" if self.calibrates else "held-out"


def read_runs(path: Path | None, *, refit: bool = False) -> list[Run]:
    """Read runs from a CSV, or the installed package's sample without a path.

    Args:
        path: CSV of runs, all held out unless constants are fitted on them.
        refit: constants are fitted on the runs that calibrate.

    Raises:
        UserError: the package is absent, or the file cannot be read, lacks columns, or repeats an id.
    """
    place = path or find_package().data.parent / SAMPLE
    try:
        with place.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            require_columns(reader, REQUIRED_COLUMNS, place)
            runs = [_run(row, f"{place}:{reader.line_num}") for row in reader]
            runs = [replace(one, may_calibrate=path is None or refit) for one in runs]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{place}: cannot be read as CSV ({error}); give a CSV of served runs") from error
    if not runs:
        raise UserError(f"{place}: holds no run; give a CSV with one row for each run")
    seen: set[str] = set()
    for one in runs:
        if one.id in seen:
            raise UserError(f"{place}: id {one.id} stands in it twice; give each run an id of its own")
        seen.add(one.id)
    return runs


def require_columns(reader: "csv.DictReader[str]", needed: Sequence[str], path: Path) -> None:
    """Refuse a CSV that lacks a column.

    Raises:
        UserError: the message names the absent columns, and all that are needed.
    """
    if absent := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise UserError(f"{path}: lacks the columns {', '.join(absent)}; it needs {', '.join(needed)}")


def _run(row: Mapping[str, str | None], where: str) -> Run:
    """Parse one row; what makes it unusable is its `refused`.

    Raises:
        UserError: the row has no id.
    """
    cells = {name: (row.get(name) or "").strip() for name in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)}
    if not cells["id"]:
        raise UserError(f"{where}: has no id; give each run one")
    model, reasons = _model(cells["model_path"])
    if cells["mode"] not in ("", "agg"):
        reasons = [f"mode {cells['mode']}: prefill and decode on separate GPUs are not planned"]
    gpu = match_gpu(cells["system"])
    if gpu is None:
        reasons.append(f"system {cells['system']!r}: no datasheet row in specs/gpus.py")
    stated = cells["gemm_quant_mode"] or cells["precision"]
    dtype = FORMATS.get(stated)
    if dtype is None:
        reasons.append(f"format {stated!r}: not one of {', '.join(filter(None, FORMATS))}")
    sizes = {name: _whole(cells[name], most) for name, most in MOST.items()}
    for name in (one for one in sizes if sizes[one] is None):
        reasons.append(f"{name} {cells[name] or 'unknown'}: not a whole number from 1 to {MOST[name]}")
    for name, why in ONLY_ONE.items():
        if cells[name] and _whole(cells[name], 1) is None:
            reasons.append(f"{name} {cells[name]}: {why}")
    if sizes["osl"] == 1:
        reasons.append("osl 1: the first token is the only one, so there is no TPOT")
    times = {name: positive_time(cells[name]) for name in ("silicon_tpot_ms", "silicon_ttft_ms")}
    for name in (one for one in times if times[one] is None):
        reasons.append(f"{name} {cells[name] or 'absent'}: no finite time above 0")
    return Run(
        id=cells["id"],
        engine=cells["backend"].lower(),
        gpu=gpu.slug if gpu else cells["system"],
        model_path=cells["model_path"],
        model=model,
        dtype=dtype or "",
        tp=sizes["tp_size"] or 1,
        load=ServedLoad(sizes["isl"] or 1, sizes["osl"] or 1, sizes["batch_size"] or 1),
        tpot_ms=times["silicon_tpot_ms"],
        ttft_ms=times["silicon_ttft_ms"],
        refused=reasons[0] if reasons else "",
    )


def _model(name: str) -> tuple[Model | None, list[str]]:
    try:
        found = find_model(name)
    except UserError as error:
        return None, [str(error)]
    if found.experts:
        return None, [f"{name}: a mixture of experts; the planner has no cost of their routing"]
    return found, []


def _whole(text: str, most: int) -> int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and 1 <= number <= most else None


def positive_time(text: str) -> float | None:
    """Return the number in a cell; None where it is no finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) and number > 0 else None


# Figures that the planner computes of each run, from published tables of its GPU and engine.


@dataclass(frozen=True)
class ComputedRun:
    """A run with the figures that constants multiply.

    Attributes:
        run: the run.
        features: figures of its step; None where `refused` says why.
        refused: reason why nothing was computed; empty where it was.
        queues: True where memory holds fewer sequences than the run has.
    """

    run: Run
    features: StepFeatures | None = None
    refused: str = ""
    queues: bool = False


class PublishedProfiles:
    """Profiles of GPUs in a format, imported from the package on first use.

    Args:
        runs: runs whose models and widths the imports hold.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._package: TablePackage = find_package()
        usable = [one for one in runs if one.model and not one.refused]
        self._models = tuple(sorted({one.model.slug for one in usable if one.model}))
        self._widths = tuple(sorted({one.tp for one in usable}))
        self._profiles: dict[tuple[str, str], HardwareProfile | str] = {}

    def find(self, gpu: str, dtype: str) -> HardwareProfile:
        """Return the profile of a GPU in a format.

        Raises:
            UserError: the package has no tables of the GPU in this format.
        """
        key = gpu, dtype
        if key not in self._profiles:
            try:
                self._profiles[key] = self._build(gpu, dtype)
            except UserError as error:
                self._profiles[key] = str(error)
        found = self._profiles[key]
        if isinstance(found, str):
            raise UserError(found)
        return found

    def _build(self, gpu: str, dtype: str) -> HardwareProfile:
        package = self._package
        package.system(gpu)
        file = published_file(package, gpu, plan_options(self._models, self._widths, dtype))
        return build_profile([file], dtype)


def compute_runs(runs: Sequence[Run]) -> list[ComputedRun]:
    """Compute the figures of every run, in the order of the runs; a run without them has a reason.

    Raises:
        UserError: the package is not installed.
    """
    profiles = PublishedProfiles(runs)
    parts: dict[tuple[object, ...], PartCosts] = {}
    found = []
    for one in runs:
        if one.refused:
            found.append(ComputedRun(one, refused=one.refused))
            continue
        try:
            found.append(_compute(one, profiles, parts))
        except UserError as error:
            found.append(ComputedRun(one, refused=str(error)))
    return found


def _compute(run: Run, profiles: PublishedProfiles, parts: dict[tuple[object, ...], PartCosts]) -> ComputedRun:
    """Compute one run.

    Raises:
        UserError: a part has no measurement, or not even one sequence fits into memory.
    """
    if run.model is None:
        raise UserError(f"{run.model_path}: unknown model")
    profile = profiles.find(run.gpu, run.dtype)
    if run.engine not in profile.linear_implementations:
        known = ", ".join(profile.linear_implementations)
        raise UserError(f"backend {run.engine!r}: no tables of it on {run.gpu}; there are those of {known}")
    key = run.engine, run.gpu, run.dtype, run.model.slug, run.tp, run.load.context
    if key not in parts:
        query = PlanQuery(model=run.model.slug, gpus=run.tp, context=run.load.context, dtype=run.dtype)
        parts[key] = PartCosts(profile, query, Variant(run.engine))
    deployment = Deployment(run.tp)
    most = max_sequences(deployment, parts[key].query, profile)
    if not most:
        raise UserError(f"{run.gpu}: the memory of {run.tp} GPUs holds no sequence of {run.model} in {run.dtype}")
    return ComputedRun(run, step_features(parts[key], deployment, run.load), queues=run.load.concurrency > most)
