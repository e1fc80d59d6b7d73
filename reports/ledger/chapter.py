"""The report's chapter on whole layers: a ledger for each, and what the cheapest says in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports import ceilings, machine, units
from reports.files import ResultFile
from reports.ledger import layers, table
from reports.ledger.account import Ledger, account
from reports.ledger.record import record
from reports.page import Block, Facts, Table

TITLE = "Layer"
WORDS = {
    "linears": "in its linears",
    "attention": "in attention",
    "norms": "in norms",
    "launch gaps": "between launches",
}


@dataclass(frozen=True)
class Accounts:
    """The ledgers of one file."""

    file: ResultFile
    ledgers: Sequence[Ledger]

    @property
    def name(self) -> str:
        """The machine."""
        gpu = ceilings.known_gpu(self.file)
        return gpu.slug if gpu else machine.name(self.file.machine)

    def tables(self) -> list[Table]:
        """Shares, and parts alone."""
        return table.draw_up(self.ledgers)

    def sentences(self) -> list[str]:
        """Of the fewest and of the most tokens of a batch the fastest layer, once each."""
        decode = [one for one in self.ledgers if one.layer.case.tokens == one.layer.case.batch]
        counts = {one.layer.case.tokens or 0 for one in decode}
        found = []
        for tokens in sorted({min(counts), max(counts)} if counts else ()):
            alike = [one for one in decode if one.layer.case.tokens == tokens]
            found.append(self._sentence(min(alike, key=lambda one: one.seconds.mean)))
        return found

    def _sentence(self, one: Ledger) -> str:
        case = one.layer.case
        shares = [f"{units.percent(share.mean)} {said}" for name, said in WORDS.items() if (share := one.share(name))]
        shape = f"tp {case.tp}, {units.counted(case.tokens or 0, 'token')} and context {case.context}"
        text = (
            f"On {self.name} a layer of {case.model} at {shape} takes "
            f"{units.one(units.SECONDS, one.seconds.mean)} with {case.implementation}: {', '.join(shares)}"
        )
        if (fusion := one.share("fusion gain")) and abs(fusion.mean) >= 0.005:
            text += f"; fusion {'saves' if fusion.mean < 0 else 'costs'} {units.percent(abs(fusion.mean))}"
        if one.ratio:
            text += f"; it takes {one.ratio.mean:.2f} times as long as its parts alone"
            text += f" ({one.verdict or table.SINGLE})"
        return text + (f"; missing: {'; '.join(one.layer.gaps)}." if one.layer.gaps else ".")


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
    found = [Accounts(file, [account(layer) for layer in layers.collect(file)]) for file in files]
    return Chapter([one for one in found if one.ledgers])
