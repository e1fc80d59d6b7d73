"""`--gate`: verdicts that must be as expected, for use in CI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.finding import VERDICTS, Architecture, Judged, Verdict, overall_on
from specs.errors import UserError, find

KINDS = ("dense", "whole", "moe")


class GateError(Exception):
    """Verdicts that are not the expected ones: a line for each."""


@dataclass(frozen=True)
class Gate:
    """The verdict that every overall finding on a claim must have; on measured claims that of one kind of layer."""

    id: str
    kind: str
    verdict: Verdict


def parse(texts: Sequence[str], expected: Mapping[str, tuple[Verdict | None, Architecture]]) -> list[Gate]:
    """Gates from `ID`, `ID=VERDICT` or `ID/moe=VERDICT`, in comma lists; an ID alone expects what the ledger does.

    Without a kind it is the one that the claim is on: whole for those on steps of whole models, else dense; the others
    are gated with a verdict of their own: `ID/whole=VERDICT`.

    Args:
        texts: as typed.
        expected: by claim the ledger's verdict, and the kind of layer that it is on.

    Raises:
        UserError: no such claim, kind or verdict, or the ledger expects none.
    """
    found = []
    named = [part.strip() for whole in texts for part in whole.split(",") if part.strip()]
    if texts and not named:
        raise UserError("--gate: names no claim; write as in --gate tokens-125-vs-1000=REFUTED")
    for text in named:
        name, given, verdict = text.partition("=")
        slug, _, kind = name.partition("/")
        usual, own = find(expected, slug, "claim")
        chosen = verdict.upper().replace("-", "_") if given else usual if kind in ("", own) else None
        if not chosen:
            raise UserError(f"--gate {text}: no verdict is expected everywhere; name one, as in {name}=HOLDS")
        if chosen not in VERDICTS:
            raise UserError(f"--gate {text}: no verdict is called {verdict!r}; known: {', '.join(VERDICTS)}")
        if kind and kind not in KINDS:
            raise UserError(f"--gate {text}: no kind of layer is called {kind!r}; known: {', '.join(KINDS)}")
        found.append(Gate(slug, kind or own, chosen))
    return found


def check(gates: Sequence[Gate], judged: Sequence[Judged]) -> None:
    """Pass if every gate's verdict is found wherever it is asked for, and somewhere.

    Raises:
        GateError: one is not.
    """
    wrong = []
    for gate in gates:
        rows = [row for row in overall_on(judged, gate.id) if row.architecture in (None, gate.kind)]
        wrong += [
            f"{gate.id}: {row.verdict}, not {gate.verdict}"
            + (f", on {row.gpu}, {row.architecture} layers in {row.dtype}" if row.gpu else "")
            for row in rows
            if row.verdict != gate.verdict
        ]
        if not rows:
            wrong.append(f"{gate.id}: no finding on {gate.kind} layers, so not {gate.verdict}")
    if wrong:
        raise GateError("\n".join(f"gate: {line}" for line in wrong))
