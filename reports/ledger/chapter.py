"""The report's chapter on whole layers: a ledger for each, and what the fastest say in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports import units
from reports.evidence import name_among
from reports.files import ResultFile
from reports.ledger import layers, table
from reports.ledger.account import Amount, Ledger, account
from reports.ledger.record import record
from reports.page import Block, Facts, Table

TITLE = "Layer"
WORDS = {
    "linears": "in its linears",
    "attention": "in attention",
    "norms": "in norms",
    "launch gaps": "between launches",
    "fusion gain": "",
    "cache effect": "in the cache effect",
}
REACH = {"straddles": "the interval reaches across 5 %"}
WORTH = 0.005
"""Share of a layer below which a sentence passes over it."""


@dataclass(frozen=True)
class Accounts:
    """The ledgers of one file; `name` tells its machine from the others of a report."""

    name: str
    file: ResultFile
    ledgers: Sequence[Ledger]

    def tables(self) -> list[Table]:
        """Shares, and parts alone."""
        return table.draw_up(self.ledgers)

    def sentences(self) -> list[str]:
        """For each split of each model the fastest layer at the fewest and at the most tokens of a batch."""
        splits: dict[tuple[str | None, int | None, str], dict[int, list[Ledger]]] = {}
        for one in self.ledgers:
            case = one.layer.case
            if case.tokens and case.tokens == case.batch:
                by_tokens = splits.setdefault((case.model, case.tp, case.dtype), {})
                by_tokens.setdefault(case.tokens, []).append(one)
        ends = [by_tokens[end] for by_tokens in splits.values() for end in sorted({min(by_tokens), max(by_tokens)})]
        return [self._sentence(min(alike, key=lambda one: one.seconds.mean)) for alike in ends]

    def _sentence(self, one: Ledger) -> str:
        case = one.layer.case
        shares = {name: share.mean for name in WORDS if (share := one.share(name)) and abs(share.mean) >= WORTH}
        fusion = shares.pop("fusion gain", 0.0) if _is_sure(one.share("fusion gain")) else 0.0
        shares.pop("fusion gain", None)
        said = [", ".join(f"{units.percent(share)} {WORDS[name]}" for name, share in shares.items())]
        said += [f"fusion {'saves' if fusion < 0 else 'costs'} {units.percent(abs(fusion))}"] if fusion else []
        if one.ratio:
            why = REACH.get(one.verdict or "", one.verdict) or table.SINGLE
            said.append(f"together its parts take {one.ratio.mean:.2f} times as long as alone ({why})")
        said += [f"missing: {'; '.join(one.layer.gaps)}"] if one.layer.gaps else []
        return (
            f"On {self.name} a {case.dtype} layer of {case.model} at tp {case.tp}, "
            f"{units.counted(case.tokens or 0, 'token')} and context {case.context} takes "
            f"{units.one(units.SECONDS, one.seconds.mean)} with {case.implementation}: {'; '.join(filter(None, said))}."
        )


def _is_sure(share: Amount | None) -> bool:
    """Whether its interval leaves out zero."""
    return bool(share and share.interval and not share.interval[0] <= 0 <= share.interval[1])


@dataclass(frozen=True)
class Chapter:
    """The ledgers of all files."""

    accounts: Sequence[Accounts]

    def __bool__(self) -> bool:
        return bool(self.accounts)

    def sentences(self) -> list[str]:
        """What they say in words."""
        return [text for one in self.accounts for text in one.sentences()]

    def blocks(self) -> list[Block]:
        """For the terminal."""
        if not self:
            return []
        blocks: list[Block] = [Facts(title=TITLE, rows=tuple(("", text) for text in self.sentences()), level=1)]
        for one in self.accounts:
            blocks += [Facts(title=f"measured by {one.name}", rows=(("file", str(one.file.path)),)), *one.tables()]
        return blocks

    def data(self) -> list[dict[str, Any]]:
        """For a machine."""
        return [record(ledger) for one in self.accounts for ledger in one.ledgers]


def write(files: Sequence[ResultFile]) -> Chapter:
    """The ledgers of those files that hold whole layers."""
    found = [
        Accounts(name_among(file, files), file, [account(layer) for layer in layers.collect(file)]) for file in files
    ]
    return Chapter([one for one in found if one.ledgers])
