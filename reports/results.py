"""Read and check result files: what a run of the suites measured, and what not."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import isfinite
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn, TypeGuard, get_type_hints

from specs import measurement
from specs.errors import UserError
from specs.measurement import SCHEMA, Case, Measurement
from specs.parallel import Deployment

# Consistency of a step: its deployment, the shares of its ledgers, its timeline.

SHARE_TOLERANCE = 1e-3
"""Tolerance of a ledger's sum of shares, and of block ends in a timeline."""
STEP_FIELDS = ("model", "layers", "vocab", "tp", "pp", "replicas", "micro_batches", "batch", "tokens")
BLOCK_WIDTH = len(measurement.TimelineBlock._fields)


def step_fault(one: Measurement) -> str | None:
    """Describe why a step is impossible; None where it is consistent."""
    if one.case.op != measurement.STEP_OP and one.ledgers is None and one.timeline is None:
        return None
    return next(_faults(one), None)


def _faults(one: Measurement) -> Iterator[str]:
    case = one.case
    if case.op != measurement.STEP_OP:
        if one.ledgers is not None or one.timeline is not None:
            yield f"ledgers and timelines are of a {measurement.STEP_OP}, and this is a {case.op}"
        return
    if lacking := next((name for name in STEP_FIELDS if not getattr(case, name)), None):
        yield f"a step without {lacking}"
    elif any(getattr(case, name) < 1 for name in STEP_FIELDS[1:]):
        yield "a step of less than one layer, rank, micro-batch, sequence or token"
    elif (case.tokens or 0) % (case.batch or 1):
        yield f"{case.tokens} tokens do not divide over a batch of {case.batch}"
    elif why := deployment_of(one).why_not(case.ranks, case.batch or 0):
        yield why
    else:
        yield from _ledgers(one.ledgers, case.pp or 1, len(one.seconds)) if one.ledgers is not None else ()
        yield from _timeline(one.timeline, case.ranks) if one.timeline is not None else ()


def deployment_of(one: Measurement) -> Deployment:
    """Deployment of a step's model over its ranks."""
    case = one.case
    return Deployment(
        tp=case.tp or 1,
        pp=case.pp or 1,
        replicas=case.replicas or 1,
        schedule=case.schedule or "",
        micro_batches=case.micro_batches or 1,
        partition=case.partition or "",
    )


def _ledgers(ledgers: Any, stages: int, passes: int) -> Iterator[str]:
    if not isinstance(ledgers, list) or len(ledgers) != passes:
        yield f"ledgers are not one for each of its {passes} passes"
        return
    for one in ledgers:
        if not isinstance(one, list) or len(one) != stages:
            yield f"a ledger is not one for each of its {stages} stages"
            continue
        for shares in one:
            yield from _shares(shares)


def _shares(shares: Any) -> Iterator[str]:
    if not isinstance(shares, Mapping):
        yield f"a ledger is {str(shares)[:40]!r}, not shares by item"
    elif unknown := next((item for item in shares if item not in measurement.LEDGER_ITEMS), None):
        yield f"a ledger has the item {unknown[:40]!r}; known: {', '.join(measurement.LEDGER_ITEMS)}"
    elif odd := next(
        (item for item, share in shares.items() if not _is_number(share) or share < -SHARE_TOLERANCE), None
    ):
        yield f"the share of {odd} is {str(shares[odd])[:40]}, not a share"
    elif abs(sum(shares.values()) - 1) > SHARE_TOLERANCE:
        yield f"the shares of a ledger add up to {sum(shares.values()):.4g}, not 1"


def _timeline(timeline: Any, ranks: int) -> Iterator[str]:
    found: Mapping[str, Any] = timeline if isinstance(timeline, dict) else {}
    seconds, blocks = found.get("seconds"), found.get("blocks")
    if not _is_number(seconds) or not isinstance(blocks, list) or seconds <= 0:
        yield "a timeline is not a window in seconds with its blocks"
        return
    for block in blocks:
        yield from _block(block, seconds, ranks)
    for rank in range(ranks):
        edges = [0.0, *(edge for block in blocks if block[0] == rank for edge in block[2:4]), seconds]
        if any(
            abs(end - start) > SHARE_TOLERANCE * seconds for end, start in zip(edges[::2], edges[1::2], strict=True)
        ):
            yield f"the blocks of rank {rank} do not fill its timeline of {seconds:.4g} s one after another"


def _block(block: Any, seconds: float, ranks: int) -> Iterator[str]:
    if not isinstance(block, list) or len(block) != BLOCK_WIDTH:
        yield f"a block of a timeline is {str(block)[:40]!r}, not rank, kind, start, end, step, slot"
        return
    rank, kind, start, end, turn, slot = block
    if kind not in measurement.BLOCK_KINDS:
        yield f"a block of a timeline is of kind {str(kind)[:40]!r}; known: {', '.join(measurement.BLOCK_KINDS)}"
    elif not all(type(one) is int for one in (rank, turn, slot)):
        yield f"rank, step and slot of a block are {rank!r}, {turn!r} and {slot!r}, not whole numbers"[:120]
    elif not 0 <= rank < ranks:
        yield f"a block of a timeline is of rank {rank}, and there are {ranks} ranks"
    elif not (_is_number(start) and _is_number(end)) or end < start:
        yield f"a block of a timeline lasts from {str(start)[:20]} to {str(end)[:20]} s"
    elif start < 0 or end > seconds * (1 + SHARE_TOLERANCE):
        yield f"a block of a timeline lies from {start:.4g} to {end:.4g} s, outside its window of {seconds:.4g} s"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


# JSON files, with a reason in one line where a file cannot be read.

MAX_BYTES = 64 * 2**20
"""Maximum size in bytes of a result file.

Parsing a larger file would take minutes and gigabytes.
"""


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: the file is missing, a folder, a journal, unreadable, too large, empty, cut short, or not JSON.
    """
    if path.suffix == ".jsonl":
        raise UserError(f"{path}: a journal, not a result file; {_recover_command(path)}")
    text = _text(path)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        if _is_cut_short(text, error):
            size = path.stat().st_size
            raise UserError(f"{path}: cut short after {size} bytes; {_repair_hint(path)}") from error
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise UserError(f"{path}: not JSON ({where}); give a file that --benchmark-json wrote") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {_repair_hint(path)}") from error


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"{path}: {size / 2**20:.0f} MiB, of {MAX_BYTES // 2**20} that are read: 10,000 cases take 14; give a "
                "result file, or import fewer models and formats into one"
            )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {_repair_hint(path)}") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: a folder; give the result files in it, as in {path}/*.json") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); give a file that --benchmark-json wrote") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read it ({error}); check the path and its permissions") from error
    if not text.strip():
        raise UserError(f"{path}: empty; {_repair_hint(path)}")
    return text


def _is_cut_short(text: str, error: json.JSONDecodeError) -> bool:
    """True where the text starts as an object and ends before the object closes."""
    whole = text.strip()
    return whole.startswith("{") and (not whole.endswith("}") or error.pos >= len(text.rstrip()))


def _refuse_constant(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is no JSON number")


def _repair_hint(path: Path) -> str:
    journal = path.with_name(f"{path.name}.journal.jsonl")
    return _recover_command(journal) if path.name and journal.is_file() else "give a file that --benchmark-json wrote"


def _recover_command(journal: Path) -> str:
    target = journal.with_name(journal.name.partition(".journal")[0].removesuffix(".jsonl"))
    return f"use `python -m reports recover {journal} -o {target}`"


SUITES_COMMAND = "`pytest suites/ --benchmark-json=out.json`"
MAX_WORK = 1e30
"""Limit of the flops or bytes of one call, beyond any machine."""
POSITIVE_FIELDS = (
    *("tp", "pp", "tokens", "n", "k", "ranks", "message_bytes", "context", "batch", "per_layer"),
    *("replicas", "micro_batches", "layers", "vocab"),
)
"""Fields that are at least 1 where they are given."""
POSITIVE_VALUES = attrgetter(*POSITIVE_FIELDS)
FIELD_TYPES: Mapping[str, Mapping[str, Any]] = {
    "case": get_type_hints(Case),
    "measurement": {f: k for f, k in get_type_hints(Measurement).items() if k in (str, str | None, bool | None)},
}
"""Types of the fields of a case, and of those of a measurement that a report prints or decides on."""
FIELD_VALUES = {part: attrgetter(*types) for part, types in FIELD_TYPES.items()}
"""Functions that return the values of these fields, in the same order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResultFile:
    """A file as pytest-benchmark writes it for the suites.

    Instances compare by identity, so that each can be a key.

    Attributes:
        path: place that the file was read from.
        machine: `machine_info`.
        measurements: one for each case, in the order of the file.
        not_run: reason by case name for cases that were left out.
        failed: error by case name.
        datetime: end of the run, ISO 8601.
        commit: `commit_info`.
        version: version of the pytest-benchmark that wrote the file.
        options: options of the run.
        schema: `shardbench_schema`.
        command: command of the run; empty where the file does not say.
        notes: remarks of an import on its source.
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
        """True for figures that others measured and an import wrote."""
        return "source" in self.machine

    @cached_property
    def by_question(self) -> Mapping[str, list[Measurement]]:
        """Measurements by the question of their case."""
        found: dict[str, list[Measurement]] = {}
        for one in self.measurements:
            found.setdefault(one.case.question, []).append(one)
        return found

    @property
    def profiler(self) -> str:
        """Profiler attached to the run; empty for times that the suites took themselves."""
        return str(self.machine.get("profiler") or "")


def load_all(paths: Sequence[Path]) -> list[ResultFile]:
    """Read several files.

    Raises:
        UserError: as `load`; also for a file given twice, and for a profile, since a profiler slows the run.
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
        UserError: the file cannot be read, is no result file, is of a newer schema, or contradicts itself.
    """
    return parse(path, read_json(path))


def parse(path: Path, content: Any) -> ResultFile:
    """Parse the JSON of a result file; `path` is for messages.

    Raises:
        UserError: the content is no result file, is of a newer schema, or contradicts itself.
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
    """Check the outline of a file and return its schema."""
    outline = {"benchmarks": list, "machine_info": dict}
    if not isinstance(content, dict) or not all(isinstance(content.get(k), kind) for k, kind in outline.items()):
        raise UserError(f"{path}: JSON, but not pytest-benchmark's; give a file that {SUITES_COMMAND} wrote")
    schema = content["machine_info"].get("shardbench_schema")
    if schema is None:
        raise UserError(
            f"{path}: pytest-benchmark's, but not of shardbench's suites; give a file that {SUITES_COMMAND} wrote"
        )
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
    for part, record in (("case", measurement.case), ("measurement", measurement)):
        if odd := _mistyped(part, tuple(map(type, FIELD_VALUES[part](record)))):
            said = f"{odd} is {getattr(record, odd)!r}, not {_name(FIELD_TYPES[part][odd])}"
            raise UserError(f"{path}: {name}: {said}; the file was edited")
    work = measurement.case.flops, measurement.case.hbm_bytes, measurement.case.wire_bytes_sent_per_rank
    if min(work) < 0 or max(work) >= MAX_WORK:
        raise UserError(f"{path}: {name}: flops or bytes are below 0 or over {MAX_WORK:g}; the file was edited")
    if why := step_fault(measurement):
        raise UserError(f"{path}: {name}: {why}; the file was edited")
    if min(filter(None, POSITIVE_VALUES(measurement.case)), default=1) < 1:
        low = next(field for field in POSITIVE_FIELDS if (getattr(measurement.case, field) or 1) < 1)
        value = getattr(measurement.case, low)
        raise UserError(f"{path}: {name}: {low} is {value}, below 1; the file was edited")
    return measurement


@lru_cache(maxsize=1024)
def _mistyped(part: str, found: tuple[type, ...]) -> str | None:
    """First field whose value is not of its type; None where all are.

    A whole number may be given as a float. Thousands of cases share a few combinations of types: hence the cache.
    """
    for (field, expected), given in zip(FIELD_TYPES[part].items(), found, strict=True):
        if not issubclass(given, expected) and not (issubclass(given, float) and issubclass(int, expected)):
            return field
    return None


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _reasons(path: Path, block: Mapping[str, Any], key: str) -> dict[str, str]:
    try:
        return {str(row["case"]): " ".join(str(row["reason"]).split()) for row in block.get(key) or ()}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: shardbench.{key} is not a list of case and reason; the file was edited") from error
