"""Find, check and summarise the result files of `reports/data/`."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from math import isclose
from pathlib import Path
from statistics import fmean, median
from typing import Any

from reports import formatting, machine, result_tables, results
from reports.communication import points
from reports.communication.points import NO_REFERENCES, CommPoint
from reports.formatting import group_by_question, is_launch, percent, pluralize, question_title
from reports.results import ResultFile
from reports.roofline import NOISY, CaseMetrics
from reports.show import case_metrics
from reports.tp_vs_pp import report as tp_vs_pp_report
from reports.tp_vs_pp.compare import is_experiment_step
from specs import layer
from specs.errors import GateError, UserError
from specs.measurement import SCHEMA, Case, Measurement
from specs.privacy import Identity, current_identity

# Name of a file in `reports/data`, <machine>-<date>-<commit>.json, and its agreement with the content.

NAME_PATTERN = re.compile(r"(?P<machine>[a-z0-9]+(?:-[a-z0-9]+)*)-(?P<date>\d{4}-\d\d-\d\d)-(?P<commit>[0-9a-f]{7,40})")


def name_faults(file: ResultFile) -> Iterator[str]:
    """Yield a line for each part of the name that contradicts the content.

    The commit is not checked where the file does not state it.
    """
    found = NAME_PATTERN.fullmatch(file.path.stem)
    if not found:
        yield "its name is not <machine>-<date>-<short commit>.json"
        return
    own, ran = _words(file), file.datetime[:10]
    if not _is_subsequence(found["machine"].split("-"), own):
        yield f"its name says {found['machine']}, it was measured on {'-'.join(own)}"
    if not _same_day(found["date"], ran):
        yield f"its name says {found['date']}, it was measured on {ran}"
    commit = str(file.commit.get("id") or "")
    if commit and not commit.startswith(found["commit"]):
        yield f"its name says commit {found['commit']}, it was measured at {commit[:12]}"


def _words(file: ResultFile) -> list[str]:
    """GPU, or CPU and threads, in the words of `python -m suites name`."""
    name = machine.device_name(file.machine)
    cores = "" if file.machine.get("gpu") else f" {file.machine.get('threads')} threads"
    return re.findall(r"[a-z0-9]+", f"{name}{cores}".lower())


def _is_subsequence(some: Sequence[str], words: Sequence[str]) -> bool:
    """True where `words` contains `some` in order: a name may omit redundant words."""
    left = iter(words)
    return all(word in left for word in some)


def _same_day(named: str, ran: str) -> bool:
    """True up to a day apart.

    The name has the local date of the start, the file the time of the end in UTC.
    """
    try:
        return abs(date.fromisoformat(named) - date.fromisoformat(ran)) <= timedelta(days=1)
    except ValueError:
        return False


# Result files of this repository: place, and files that can be read.

ROOT = Path(__file__).resolve().parents[2]
DATA_FOLDER = ROOT / "reports" / "data"


@dataclass(frozen=True)
class ResultFolder:
    """Files of a folder by name: those read, and the reasons for the damaged files."""

    folder: Path
    files: Sequence[ResultFile]
    damaged: Sequence[str]


def load_folder(folder: Path = DATA_FOLDER) -> ResultFolder:
    """Read all result files of a folder, with paths from the repository's root.

    Raises:
        UserError: the folder is missing, or has no result file.
    """
    read, damaged = [], []
    for path in result_paths(folder):
        try:
            read.append(results.parse(path_from_root(path), results.read_json(path)))
        except UserError as error:
            damaged.append(str(error).replace(str(path), str(path_from_root(path))))
    return ResultFolder(folder, read, damaged)


def result_paths(folder: Path) -> list[Path]:
    """JSON files of a folder.

    Raises:
        UserError: the folder is missing, or has no JSON file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give result files, as in `python -m reports show out.json`")
    if not (found := sorted(folder.glob("*.json"))):
        raise UserError(f"{folder}: no result file in it; give one that {results.SUITES_COMMAND} wrote")
    return found


def path_from_root(path: Path) -> Path:
    """Path relative to the repository's root; a path outside stays unchanged."""
    whole = path.resolve()
    return whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else path


# `check`: sound content, a readable schema, and no private names.

MAX_QUOTED = 60
"""Maximum number of characters shown of a text with a private name."""
REL_TOL = 1e-9
"""Relative tolerance; sums of the same samples differ by less."""


def check(paths: Sequence[Path]) -> list[str]:
    """Check files, and return a line for each.

    Args:
        paths: files, or folders with files; empty for `reports/data`.

    Raises:
        UserError: a folder is missing, or has no result file.
        GateError: a file has a fault; the message has the lines of all files.
    """
    names, lines, sound = current_identity(), [], True
    for path in _files(paths or [DATA_FOLDER]):
        found = list(find_faults(path, names))
        lines += [f"no   {path_from_root(path)}: {fault}" for fault in found] or [f"ok   {path_from_root(path)}"]
        sound = sound and not found
    if not sound:
        raise GateError("\n".join(lines))
    return lines


def _files(paths: Sequence[Path]) -> list[Path]:
    return [path for one in paths for path in (result_paths(one) if one.is_dir() else [one])]


def find_faults(path: Path, names: Identity) -> Iterator[str]:
    """Yield a line for each fault of a file.

    For a file that cannot be read at all, this is the only line.
    """
    try:
        content = results.read_json(path)
        file = results.parse(path, content)
    except UserError as error:
        yield str(error).removeprefix(f"{path}: ")
        return
    yield from _schema(content)
    yield from _facts(file)
    yield from _counts(content)
    yield from _statistics(content, file)
    yield from _private_names(content, names)
    if path.resolve().parent == DATA_FOLDER:
        yield from name_faults(file)


def _schema(content: dict[str, Any]) -> Iterator[str]:
    block = content.get("shardbench")
    if not isinstance(block, dict):
        yield "no shardbench block: what did not run, and the options, are not told; run the suites again"
    elif (own := block.get("schema")) != (of_machine := content["machine_info"]["shardbench_schema"]):
        yield f"schema is {own!r} in shardbench, {of_machine} in machine_info; this shardbench writes {SCHEMA} in both"


def _facts(file: ResultFile) -> Iterator[str]:
    """Yield the missing facts that a reader of the figures needs."""
    known: dict[str, Any] = {"datetime": file.datetime}
    if not file.published and not file.profiler:
        own = {f"machine_info.{name}": file.machine.get(name) for name in ("device", "torch")}
        known |= {"version of pytest-benchmark": file.version, **own}
    for name, fact in known.items():
        if not fact:
            yield f"{name} is missing; run the suites again"
    if not file.measurements:
        yield "no case in it was measured"


def _counts(content: dict[str, Any]) -> Iterator[str]:
    """Yield counts that contradict a second place in the file."""
    for entry in content["benchmarks"]:
        stats, info, name = entry["stats"], entry["extra_info"], entry.get("fullname")
        rounds, passes = info.get("pass_rounds") or [len(stats["data"])], info.get("passes")
        if passes is not None and passes != len(rounds):
            yield f"{name}: passes is {passes}, of {len(rounds)} in pass_rounds; the file was edited"
        if stats.get("rounds", len(stats["data"])) != len(stats["data"]):
            yield f"{name}: rounds is {stats['rounds']}, of {len(stats['data'])} samples; the file was edited"


def _statistics(content: dict[str, Any], file: ResultFile) -> Iterator[str]:
    """Yield statistics that do not follow from the samples."""
    for entry, one in zip(content["benchmarks"], file.measurements, strict=True):
        stats, samples = entry["stats"], one.samples
        low, high = entry["extra_info"].get("interval_seconds") or (None, None)
        own_low, own_high = one.interval or (None, None)
        said_and_own = {
            "median": (stats.get("median"), one.median),
            "mean": (stats.get("mean"), fmean(samples)),
            "min": (stats.get("min"), min(samples)),
            "max": (stats.get("max"), max(samples)),
            "lower end of interval_seconds": (low, own_low),
            "upper end of interval_seconds": (high, own_high),
        }
        for name, (said, own) in said_and_own.items():
            if said is not None and not _is_close(said, own):
                yield f"{one.case.name}: {name} is {said!r}, of its samples {own!r}; the file was edited"


def _is_close(said: object, own: float | None) -> bool:
    return isinstance(said, int | float) and own is not None and isclose(said, own, rel_tol=REL_TOL)


def _private_names(content: dict[str, Any], names: Identity) -> Iterator[str]:
    if "node" in content["machine_info"]:
        yield "machine_info.node is the host's name; take it out"
    for place, text in names.find_names(content):
        told = names.text(text)
        short = told if len(told) <= MAX_QUOTED else f"{told[:MAX_QUOTED]}…"
        yield f"{place} names a user, a host or a home folder; it should say {short!r}"


Headline = tuple[str, str]
"""A question and the file's answer."""


def headlines(file: ResultFile, figures: Sequence[CaseMetrics]) -> list[Headline]:
    """A line for each question, TP against PP first.

    Lines on figures of others say that they are published.
    """
    steps = [text for ran in tp_vs_pp_report.build_section([file]).by_file for text in ran.sentences()]
    others = [one for one in figures if not is_experiment_step(one.measurement)]
    tables = group_by_question(others, lambda one: one.measurement.case)
    answered = [
        (question_label(question, members), _headline_text(file, question, members)) for question, members in tables
    ]
    known = [
        *((tp_vs_pp_report.TITLE, text) for text in steps),
        *((question, text) for question, text in answered if text),
    ]
    return [(question, f"published: {text}") for question, text in known] if file.published else known


def question_label(question: str, figures: Sequence[CaseMetrics]) -> str:
    """Label of a question in a list.

    Launches have a table of their own among the ceilings.
    """
    return "launch" if is_launch(figures[0].measurement.case) else question_title(question).partition(":")[0]


def _headline_text(file: ResultFile, question: str, figures: Sequence[CaseMetrics]) -> str:
    if is_launch(figures[0].measurement.case):
        least = min(one.measurement.median for one in figures)
        return f"{formatting.with_unit(formatting.SECONDS, least)} a launch at the least"
    if question == "ceilings":
        doubts = [f"{name} {', '.join(words)}" for name, words in machine.doubtful_ceilings(file).items()]
        return result_tables.ceilings_text(machine.measured_ceilings(file)) + (
            f" ({'; '.join(doubts)})" if doubts else ""
        )
    if question == "layer":
        return _layers(figures)
    if question == layer.SHARES_QUESTION:
        return f"{pluralize(len(figures), 'case')}, {_times([one.measurement for one in figures])}"
    if points.is_between_ranks(figures[0].measurement.case):
        return "; ".join(_messages(points.build_points(file, figures, NO_REFERENCES)))
    return ", ".join(_streams(question, figures))


def _streams(question: str, figures: Sequence[CaseMetrics]) -> Iterator[str]:
    """Yield the results on linears and attention.

    Results: share of the floor, memory bandwidth, and growth of the time with tokens.
    """
    yield pluralize(len(figures), "case")
    found = {
        "floor": [one.floor_share for one in figures if one.floor_share],
        "the datasheet's floor": [one.datasheet_share for one in figures if one.datasheet_share],
    }
    if of := next((name for name, reached in found.items() if reached), None):
        reached = found[of]
        middle = f" ({percent(median(reached))} in the middle)" if len(reached) > 1 else ""
        yield f"{_range([percent(min(reached)), percent(max(reached))])} of {of}{middle}"
    reading = [one.bytes_per_second or 0 for one in figures if one.bound == "memory"]
    if reading:
        yield f"reading at up to {formatting.with_unit(formatting.BYTES_PER_SECOND, max(reading))}"
    if question == "sweep" and (growth := _growth(figures)):
        yield growth


def _growth(figures: Sequence[CaseMetrics]) -> str:
    """Time ratio of the most to the fewest tokens, the median over series."""
    series: dict[object, dict[int, float]] = {}
    for one in figures:
        case = one.measurement.case
        key = case.model, case.layer, case.tp, case.dtype, case.implementation, case.cache, case.launch
        series.setdefault(key, {})[case.tokens or 0] = one.measurement.median
    ends = {(min(times), max(times)) for times in series.values()}
    if len(ends) != 1 or min(ends)[0] == min(ends)[1]:
        return ""
    few, many = ends.pop()
    ratio = median(times[many] / times[few] for times in series.values())
    return f"{pluralize(many, 'token')} take {formatting.three_digits(ratio)} times as long as {few}"


def _layers(figures: Sequence[CaseMetrics]) -> str:
    """Times of whole layers, by tokens."""
    whole = [one.measurement for one in figures if one.measurement.case.layer == layer.WHOLE_LAYER]
    by: dict[tuple[str, str], list[Measurement]] = {}
    for one in sorted(whole, key=lambda one: one.case.tokens or 0):
        by.setdefault((one.case.implementation, one.case.launch), []).append(one)
    said = [
        f"{implementation}, {launch}: "
        + ", ".join(f"{_time(one)} at {pluralize(one.case.tokens or 0, 'token')}" for one in members)
        for (implementation, launch), members in by.items()
    ]
    return "; ".join(said) or pluralize(len(figures), "case")


def _messages(points: Sequence[CommPoint]) -> Iterator[str]:
    """Yield the shortest time and the highest bus bandwidth of each operation."""
    by: dict[str, list[CommPoint]] = {}
    for one in points:
        by.setdefault(one.case.op, []).append(one)
    for op, members in by.items():
        bandwidths = [one.busbw for one in members if one.busbw]
        most = (
            f", busbw up to {formatting.with_unit(formatting.BYTES_PER_SECOND, max(bandwidths))}" if bandwidths else ""
        )
        yield (
            f"{op} from "
            f"{formatting.with_unit(formatting.SECONDS, min(one.measurement.median for one in members))}{most}"
        )


def _times(measured: Sequence[Measurement]) -> str:
    ends = sorted(one.median for one in measured)
    return _range(
        [formatting.with_unit(formatting.SECONDS, ends[0]), formatting.with_unit(formatting.SECONDS, ends[-1])]
    )


def _time(one: Measurement) -> str:
    return formatting.with_unit(formatting.SECONDS, one.median)


def _range(ends: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys(ends))


# Summary of a result file: place, date, size, models and precision.


@dataclass(frozen=True)
class Summary:
    """Summary of a file for an index."""

    file: ResultFile

    @cached_property
    def figures(self) -> list[CaseMetrics]:
        """Each measurement with its floors."""
        return case_metrics(self.file)

    @cached_property
    def headlines(self) -> list[Headline]:
        """Answers of the file, question by question."""
        return headlines(self.file, self.figures)

    @property
    def name(self) -> str:
        """Name of the file, without folder and suffix."""
        return self.file.path.stem

    @property
    def questions(self) -> list[str]:
        """Questions that the file answers, in the order of the tables."""
        return list(dict.fromkeys(question for question, _ in self.headlines))

    @property
    def models(self) -> list[str]:
        """Slugs of the measured models, sorted."""
        return sorted({one.case.model for one in self.file.measurements if one.case.model})

    @property
    def splits(self) -> str:
        """Degrees of TP and PP: `tp 1, 2; pp 1, 2`."""
        degrees = {"tp": self._values(lambda case: case.tp), "pp": self._values(lambda case: case.pp)}
        return "; ".join(f"{name} {', '.join(map(str, found))}" for name, found in degrees.items() if found)

    def _values(self, of: Callable[[Case], int | None]) -> list[int]:
        return sorted({value for one in self.file.measurements if (value := of(one.case))})

    @cached_property
    def half_widths(self) -> list[float]:
        """Relative half-widths of the 95 % intervals, ascending, without single passes."""
        return sorted(one.half_width for one in self.figures if one.half_width is not None)

    def certainty(self) -> str:
        """Noise of the figures, in a line."""
        if not self.figures:
            return ""
        if self.file.published:
            return "one figure a point and no spread: published, not measured here"
        if not self.half_widths:
            return "single passes: no intervals, so nothing can be told apart"
        middle, worst = percent(median(self.half_widths)), percent(self.half_widths[-1])
        said = [f"±{middle} in the middle and ±{worst} at worst (95 %, between passes)"]
        counts = {
            "noisy": sum(1 for one in self.figures if (one.noise or 0) > NOISY),
            "stopped by the budget": sum(1 for one in self.file.measurements if one.stopped_by == "budget"),
            "throttled": sum(1 for one in self.file.measurements if one.throttled),
        }
        said += [f"{count} of {len(self.figures)} {what}" for what, count in counts.items() if count]
        return ", ".join(said)

    def record(self) -> dict[str, Any]:
        """Summary as JSON data."""
        return {
            "file": str(self.file.path),
            "machine": machine.describe(self.file.machine),
            "datetime": self.file.datetime or None,
            "commit": self.file.commit.get("id"),
            "command": machine.run_command(self.file),
            "schema": self.file.schema,
            "cases": len(self.file.measurements),
            "not_run": len(self.file.not_run),
            "failed": len(self.file.failed),
            "least_passes": min(self._passes(), default=None),
            "most_passes": max(self._passes(), default=None),
            "median_half_width": median(self.half_widths) if self.half_widths else None,
            "models": self.models,
            "tp": self._values(lambda case: case.tp),
            "pp": self._values(lambda case: case.pp),
            "whole_models": any(map(is_experiment_step, self.file.measurements)),
            "questions": self.questions,
            "headlines": [{"question": question, "text": text} for question, text in self.headlines],
        }

    def _passes(self) -> Iterable[int]:
        return (len(one.seconds) for one in self.file.measurements)

    def cells(self) -> Mapping[str, str]:
        """Row of the index, by column."""
        commit = str(self.file.commit.get("id") or "")[:7]
        return {
            "file": self.file.path.name,
            "date": self.file.datetime[:10],
            "commit": f"{commit}+" if self.file.commit.get("dirty") else commit,
            "cases": str(len(self.file.measurements)),
            "passes": result_tables.pass_range(self.file).replace(" to ", "–"),
            "models": ", ".join(self.models),
            "split": self.splits,
        }
