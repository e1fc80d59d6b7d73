"""The report as blocks: what the page shows and the terminal prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports import answer as tokens
from reports import ceilings, claims, claims_page, generations, header, libraries, summary
from reports.answer import Answer
from reports.communication import chapter
from reports.communication.chapter import Chapter
from reports.evidence import Evidence, collect, over_tokens
from reports.experiment import chapter as experiments
from reports.files import ResultFile
from reports.finding import Judged
from reports.generations import Generations
from reports.headline import QUESTION, answer
from reports.ledger import chapter as layer_chapter
from reports.page import Block, Facts, Table
from reports.plan import chapter as plans

PUBLISHED = "`python -m reports import aiconfigurator --system h200_sxm -o h200.json`, after `pip install '.[silicon]'`"


@dataclass(frozen=True)
class Story:
    """Everything that the files say, judged.

    Attributes:
        files: what was read.
        evidences: their times over tokens.
        judged: every claim.
        answer: to the project's question.
        tokens: whether 125 tokens take as long as 1000.
        experiment: TP against PP on whole models.
        plans: the same over 8 GPUs, put together from parts.
        generations: GPUs against the oldest, where two have a linear in common.
        layers: ledgers of whole layers.
        communication: what was measured and published of operations between ranks.
        missing: what the report lacks, and what to do about it.
    """

    files: Sequence[ResultFile]
    evidences: Sequence[Evidence]
    judged: Sequence[Judged]
    answer: Answer
    tokens: Answer
    experiment: experiments.Chapter
    plans: plans.Chapter
    generations: Generations | None
    layers: layer_chapter.Chapter
    communication: Chapter
    missing: Sequence[str]

    def blocks(self) -> list[Block]:
        """The answers, TP against PP, plans, verdicts, generations, layers, communication, where figures come from."""
        blocks = [*self.answers(), *self.experiment.blocks(), *self.plans.blocks()]
        blocks += [*claims_page.draw_up(self.judged, more="`python -m reports claims --all`"), *self.summary()]
        if self.generations:
            blocks += generations.blocks(self.generations)
        return [*blocks, *self.layers.blocks(), *self.communication.blocks(), *self.provenance()]

    def answers(self) -> list[Block]:
        """Both questions, the project's first."""
        parallel = [self.answer.headline, *self.answer.details, *self.missing]
        times = [self.tokens.headline, *self.tokens.details]
        return [
            Facts(title=QUESTION, rows=tuple(("", line) for line in parallel), level=1),
            Facts(title=tokens.QUESTION, rows=tuple(("", line) for line in times), level=1),
        ]

    def verdicts(self, *, every: bool = False) -> list[Block]:
        """A table for each measured claim, and one for all of arithmetic."""
        return claims_page.draw_up(self.judged, every=every)

    def summary(self) -> list[Table]:
        """Libraries and fabric that figures were made with, and the note's two tables anew."""
        return [*libraries.draw_up(self.files), *summary.draw_up(self.judged)]

    def provenance(self) -> list[Block]:
        """For each file its machine, source, date, ceilings, and what is missing from it."""
        found: list[Block] = []
        for file in self.files:
            found += [header.above(file, ceilings.measured(file), ceilings.known_gpu(file)), *header.below(file)]
        return found

    def data(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "question": QUESTION,
            "answer": self.answer.headline,
            "details": list(self.answer.details),
            "tokens": {
                "question": tokens.QUESTION,
                "answer": self.tokens.headline,
                "details": list(self.tokens.details),
            },
            "missing": list(self.missing),
            "claims": [claims.record(one) for one in self.judged],
            "experiment": self.experiment.data(),
            "plans": self.plans.data(),
            "layers": self.layers.data(),
            "communication": self.communication.data(),
            "files": [str(file.path) for file in self.files],
        }


def tell(files: Sequence[ResultFile]) -> Story:
    """Judge what the files hold."""
    collected = collect(files)
    evidences, judged = over_tokens(collected), claims.judge(collected)
    missing = []
    if not any(file.published for file in files):
        missing.append(f"No published GPU stands beside this: {PUBLISHED}.")
    if all(file.published for file in files):
        missing.append("No machine of your own is among the files: `pytest suites/ --benchmark-json=out.json`.")
    side_by_side, experiment, planned = (
        generations.side_by_side(files),
        experiments.write(files),
        plans.write(files),
    )
    layers, communication = layer_chapter.write(files), chapter.write(files)
    return Story(
        files=files,
        evidences=evidences,
        judged=judged,
        answer=answer(experiment, planned),
        tokens=tokens.answer(judged),
        experiment=experiment,
        plans=planned,
        generations=side_by_side,
        layers=layers,
        communication=communication,
        missing=missing,
    )
