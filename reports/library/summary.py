"""A result file in a few words: where and when, how much, of which models, and how sure it is."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from reports import command, header, machine
from reports.experiment.collect import belongs
from reports.figures import NOISY, Figures
from reports.files import ResultFile
from reports.library.headlines import Headline, headlines
from reports.show import read
from reports.units import percent
from specs.measurement import Case


@dataclass(frozen=True)
class Summary:
    """What an index says of a file."""

    file: ResultFile

    @cached_property
    def figures(self) -> list[Figures]:
        """Each measurement beside its floors."""
        return read(self.file)

    @cached_property
    def headlines(self) -> list[Headline]:
        """What it says, question by question."""
        return headlines(self.file, self.figures)

    @property
    def name(self) -> str:
        """The file's, without folder and ending."""
        return self.file.path.stem

    @property
    def questions(self) -> list[str]:
        """What it answers, in the order of the tables."""
        return list(dict.fromkeys(question for question, _ in self.headlines))

    @property
    def models(self) -> list[str]:
        """Whose shapes."""
        return sorted({one.case.model for one in self.file.measurements if one.case.model})

    @property
    def splits(self) -> str:
        """`tp 1, 2; pp 1, 2`: over how many ranks they were cut."""
        degrees = {"tp": self._values(lambda case: case.tp), "pp": self._values(lambda case: case.pp)}
        return "; ".join(f"{name} {', '.join(map(str, found))}" for name, found in degrees.items() if found)

    def _values(self, of: Callable[[Case], int | None]) -> list[int]:
        return sorted({value for one in self.file.measurements if (value := of(one.case))})

    @cached_property
    def half_widths(self) -> list[float]:
        """Of the 95 % intervals, relative, by rising size; a single pass has none."""
        return sorted(one.half_width for one in self.figures if one.half_width is not None)

    def certainty(self) -> str:
        """How noisy it was, in a line."""
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
        """For a machine."""
        return {
            "file": str(self.file.path),
            "machine": machine.describe(self.file.machine),
            "datetime": self.file.datetime or None,
            "commit": self.file.commit.get("id"),
            "command": command.told(self.file),
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
            "whole_models": any(map(belongs, self.file.measurements)),
            "questions": self.questions,
            "headlines": [{"question": question, "text": text} for question, text in self.headlines],
        }

    def _passes(self) -> Iterable[int]:
        return (len(one.seconds) for one in self.file.measurements)

    def cells(self) -> Mapping[str, str]:
        """A row of the index, by its column."""
        commit = str(self.file.commit.get("id") or "")[:7]
        return {
            "file": self.file.path.name,
            "date": self.file.datetime[:10],
            "commit": f"{commit}+" if self.file.commit.get("dirty") else commit,
            "cases": str(len(self.file.measurements)),
            "passes": header.passes(self.file).replace(" to ", "–"),
            "models": ", ".join(self.models),
            "split": self.splits,
        }
