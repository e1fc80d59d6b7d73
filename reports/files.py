"""A result file: what one run of the suites measured, and what it did not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from reports import jsontext
from reports.experiment import sound
from specs.errors import UserError
from specs.measurement import SCHEMA, Case, Measurement

SUITES = "`pytest suites/ --benchmark-json=out.json`"
MOST_WORK = 1e30
"""Flops or bytes of one call that no machine gets through."""
CASE_KINDS = tuple(get_type_hints(Case).items())
COUNTED = (
    *("tp", "pp", "tokens", "n", "k", "ranks", "message_bytes", "context", "batch", "per_layer"),
    *("replicas", "micro_batches", "layers", "vocab"),
)
"""What there is at least one of, where it is told at all."""
RECORD_KINDS = tuple((f, k) for f, k in get_type_hints(Measurement).items() if k in (str, str | None, bool | None))
"""Types of the fields that a report prints or decides on, looked up once: files hold thousands of cases."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResultFile:
    """One file as pytest-benchmark writes it for the suites; each reading is itself alone, and can be a key.

    Attributes:
        path: where it was read.
        machine: `machine_info`.
        measurements: one for each case, in the order of the file.
        not_run: by case name the reason why it was left out.
        failed: by case name what went wrong.
        datetime: when the run ended, ISO 8601.
        commit: `commit_info`.
        version: of the pytest-benchmark that wrote it.
        options: what the run was asked for.
        schema: `shardbench_schema`.
        command: how the run was started; empty where the file does not say.
        notes: what an import had to say about its source.
    """

    path: Path
    machine: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    not_run: Mapping[str, str]
    failed: Mapping[str, str]
    datetime: str
    commit: Mapping[str, Any]
    version: str
    options: Mapping[str, Any]
    schema: int
    command: str = ""
    notes: tuple[str, ...] = ()

    @property
    def published(self) -> bool:
        """Whether others measured it, and an import wrote it."""
        return "source" in self.machine

    @property
    def profiler(self) -> str:
        """The profiler that took its times, attached to the run; empty for times that the suites took themselves."""
        return str(self.machine.get("profiler") or "")


def load_all(paths: Sequence[Path]) -> list[ResultFile]:
    """Read several, each once.

    Raises:
        UserError: as `load`, where a file is given twice, and where one is a profile: a profiler slows what it watches.
    """
    places = Counter(path.resolve() for path in paths)
    twice = next((path for path in paths if places[path.resolve()] > 1), None)
    if twice:
        raise UserError(f"{twice}: given twice; its figures would count as two witnesses, so give it once")
    found = [load(path) for path in paths]
    if profile := next((one for one in found if one.profiler), None):
        raise UserError(
            f"{profile.path}: a profile by {profile.profiler}, no witness beside times taken without one; "
            "`python -m reports show` shows it, `compare` holds it against a run"
        )
    return found


def load(path: Path) -> ResultFile:
    """Read a result file.

    Raises:
        UserError: it cannot be read, is none, is of a newer schema, or contradicts itself.
    """
    return parse(path, jsontext.read(path))


def parse(path: Path, content: Any) -> ResultFile:
    """Take a result file's JSON apart; `path` is for messages.

    Raises:
        UserError: it is no result file, is of a newer schema, or contradicts itself.
    """
    schema = _schema(path, content)
    measurements = tuple(_measurement(path, entry) for entry in content["benchmarks"])
    name, count = next(iter(Counter(m.case.name for m in measurements).most_common(1)), ("", 0))
    if count > 1:
        raise UserError(f"{path}: case {name} stands in it {count} times; keep one of them, or run the suites again")
    block = _mapping(content.get("shardbench"))
    return ResultFile(
        path=path,
        machine=content["machine_info"],
        measurements=measurements,
        not_run=_reasons(path, block, "not_run"),
        failed=_reasons(path, block, "failed"),
        datetime=str(content.get("datetime") or ""),
        commit=_mapping(content.get("commit_info")),
        version=str(content.get("version") or ""),
        options=_mapping(block.get("options")),
        schema=schema,
        command=str(block.get("command") or ""),
        notes=tuple(map(str, notes)) if isinstance(notes := block.get("notes"), list) else (),
    )


def _schema(path: Path, content: Any) -> int:
    """The schema of a file whose outline is right."""
    outline = {"benchmarks": list, "machine_info": dict}
    if not isinstance(content, dict) or not all(isinstance(content.get(k), kind) for k, kind in outline.items()):
        raise UserError(f"{path}: JSON, but not pytest-benchmark's; give a file that {SUITES} wrote")
    schema = content["machine_info"].get("shardbench_schema")
    if schema is None:
        raise UserError(f"{path}: pytest-benchmark's, but not of shardbench's suites; give a file that {SUITES} wrote")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise UserError(f"{path}: shardbench_schema is {schema!r}, no number from 1 on; run the suites again")
    if schema > SCHEMA:
        raise UserError(f"{path}: of schema {schema}, this shardbench reads up to {SCHEMA}; update shardbench")
    return schema


def _measurement(path: Path, entry: Any) -> Measurement:
    if not isinstance(entry, dict):
        raise UserError(f"{path}: a benchmark is {str(entry)[:40]!r}, not an object; the file was edited")
    name = entry.get("fullname", "?")
    stats = entry.get("stats")
    if isinstance(stats, dict) and "data" not in stats:
        raise UserError(f"{path}: {name}: no samples in it; save with --benchmark-json or --benchmark-save-data")
    try:
        measurement = Measurement.from_benchmark(entry)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {name}: not a shardbench case ({error}); the file was edited") from error
    for record, kinds in ((measurement.case, CASE_KINDS), (measurement, RECORD_KINDS)):
        for field, kind in kinds:
            value = getattr(record, field)
            if not isinstance(value, kind) and not (isinstance(value, float) and isinstance(0, kind)):
                raise UserError(f"{path}: {name}: {field} is {value!r}, not {_name(kind)}; the file was edited")
    work = measurement.case.flops, measurement.case.hbm_bytes, measurement.case.wire_bytes_sent_per_rank
    if not all(0 <= count < MOST_WORK for count in work):
        raise UserError(f"{path}: {name}: flops or bytes are below 0 or over {MOST_WORK:g}; the file was edited")
    if why := sound.why_not(measurement):
        raise UserError(f"{path}: {name}: {why}; the file was edited")
    if low := next((field for field in COUNTED if (getattr(measurement.case, field) or 1) < 1), None):
        value = getattr(measurement.case, low)
        raise UserError(f"{path}: {name}: {low} is {value}, below 1; the file was edited")
    return measurement


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _reasons(path: Path, block: Mapping[str, Any], key: str) -> dict[str, str]:
    try:
        return {str(row["case"]): " ".join(str(row["reason"]).split()) for row in block.get(key) or ()}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: shardbench.{key} is not a list of case and reason; the file was edited") from error
