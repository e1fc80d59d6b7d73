"""Findings on plans at single loads, and the one over all of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from reports.experiment.collect import Load, Setting
from reports.experiment.rows import Row, summed_up
from reports.experiment.words import apart, at
from reports.finding import Finding, Verdict
from reports.plan.basis import Basis
from reports.planned.subject import Span, Subject


@dataclass(frozen=True)
class Rows:
    """Of one claim on one GPU; `lacking` says why there are none."""

    subject: Subject
    unit: str
    lacking: list[str] = field(default_factory=list)
    _rows: list[tuple[Row, Basis]] = field(default_factory=list)

    def add(
        self,
        setting: Setting,
        load: Load,
        what: str,
        verdict: Verdict,
        found: tuple[Span, Basis],
        condition: str = "",
        *,
        decides: bool = True,
    ) -> None:
        """One more; `what` ran at a load."""
        finding = finding_of(self.subject, self.unit, verdict, found, condition)
        scoped = replace(finding, scope=f"{what} {at(load)}", model=setting.model)
        self._rows.append((Row(setting, load, what, scoped, decides), found[1]))

    def findings(self, condition: str = "") -> Iterator[Finding]:
        """The overall one, which says what is assumed, then the rows.

        Args:
            condition: of the overall one, in place of what is put together from the rows.
        """
        named = [self._named(row) for row, _ in self._rows]
        lacking = self.lacking[0] if self.lacking else "nothing of it can be planned"
        whole, *rest = summed_up(self.subject.evidence, self.unit, named, lacking=lacking)
        provenance = whole.provenance if self._rows else ""
        said = condition if condition and self._rows else whole.condition
        yield replace(whole, condition=also(said, self.assumed), provenance=provenance)
        yield from rest

    def _named(self, row: Row) -> Row:
        """With what tells its setting from others of its phase."""
        alike = {one.setting for one, _ in self._rows if one.setting.decode == row.setting.decode}
        scope = f"{row.finding.scope} {apart(row.setting, alike)}".rstrip()
        return replace(row, finding=replace(row.finding, scope=scope))

    @property
    def assumed(self) -> str:
        """What all rows assume together."""
        return Basis.joined(basis for _, basis in self._rows).assumed


def finding_of(subject: Subject, unit: str, verdict: Verdict, found: tuple[Span, Basis], condition: str) -> Finding:
    """A finding by a plan: modelled at best, with the cases of all its parts."""
    (value, low, high), basis = found
    return replace(
        subject.evidence.blank(unit),
        verdict=verdict,
        value=value,
        low=low,
        high=high,
        condition=also(condition, basis.assumed),
        cases=basis.cases,
        provenance=basis.provenance,
    )


def also(*texts: str) -> str:
    """Those that say something, one after another."""
    return "; ".join(filter(None, texts))
