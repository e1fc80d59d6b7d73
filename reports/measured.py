"""Every statement that times decide: on linears and layers, and on whole models that ran or are planned."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reports import knees, ratios, utilisation
from reports.evidence import Evidence
from reports.experiment import schedules, shares, winners
from reports.finding import Architecture, Finding, Verdict
from reports.planned import all_reduces, prefill, steps, winner

SOURCE = "note, decode"
NOTHING = "no file with times over tokens: run suites/bench_token_sweep.py, or import published ones"
NO_STEPS = (
    "no file with steps of whole models, nor of a GPU to plan for: run suites/bench_tp_vs_pp.py on two ranks or more, "
    "or import published times"
)


@dataclass(frozen=True)
class Claim:
    """One statement.

    Attributes:
        id: slug in options and files.
        statement: what is claimed, in our words.
        source: where the note says so.
        expected: the verdict that the ledger has come to; None where it differs by machine.
        judge: finds what the evidence says; arithmetic needs none.
        kind: of layer that `expected` is on, and a gate that names none.
        missing: what to run where no file has anything to judge it by.
    """

    id: str
    statement: str
    source: str
    expected: Verdict | None
    judge: Callable[[Sequence[Evidence]], Iterable[Finding]]
    kind: Architecture = "dense"
    missing: str = NOTHING


Judge = Callable[[Sequence[Evidence]], Iterable[Finding]]


def _ran_or_planned(ran: Judge, planned: Judge) -> Judge:
    """By whole models that ran; of GPUs on which none did by steps that are put together from their parts."""
    return lambda evidences: [*ran(evidences), *planned(evidences)]


MEASURED = (
    Claim(
        "tokens-125-vs-1000",
        "1000 tokens take as long as 125: within 1.25 times the time.",
        SOURCE,
        "REFUTED",
        lambda evidences: ratios.judge(evidences, 125, 1000),
    ),
    Claim(
        "tokens-1-vs-125",
        "125 tokens take as long as one: within 1.25 times the time.",
        "what is true of the claim above",
        None,
        lambda evidences: ratios.judge(evidences, 1, 125),
    ),
    Claim(
        "knee",
        "The knee, where streaming the weights takes as long as computing, lies between 125 and 1000 tokens.",
        "what the claim above hides",
        None,
        knees.judge_knee,
    ),
    Claim(
        "linear-throughput",
        "Throughput grows in proportion to the batch.",
        SOURCE,
        "HOLDS_IF",
        knees.judge_throughput,
    ),
    Claim(
        "tp-utilisation",
        "Tensor parallelism uses all of the memory bandwidth in decode: one token at 95 % of it or more.",
        SOURCE,
        None,
        utilisation.judge,
    ),
    Claim(
        "pp-one-of-p",
        "A single request under pipeline parallelism uses 1/P of the ranks: no more than 1.05 times that.",
        SOURCE,
        "HOLDS",
        _ran_or_planned(schedules.judge_single, steps.judge_single),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "microbatch-useless",
        "Sync and async pipelines take the same time for a batch: within 1.25 times of each other.",
        SOURCE,
        None,
        _ran_or_planned(schedules.judge_micro_batches, steps.judge_micro_batches),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "pp-utilisation",
        "Stages of an async pipeline are busy 95 % of the time in decode.",
        SOURCE,
        None,
        _ran_or_planned(schedules.judge_utilisation, steps.judge_utilisation),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "tp-lower-latency",
        "Tensor parallelism has the lower decode latency, over the same ranks and at the same batch.",
        SOURCE,
        None,
        _ran_or_planned(winners.judge_latency, steps.judge_latency),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "prefill-winner",
        "Pipeline parallelism reads prompts faster, fill and drain included.",
        "note, prefill",
        None,
        _ran_or_planned(winners.judge_prefill, prefill.judge_winner),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "decode-winner",
        "At a large decode batch async pipeline parallelism gives more tokens a second than tensor parallelism.",
        "note, table of winners",
        None,
        _ran_or_planned(winners.judge_crossover, winner.judge),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "allreduce-30",
        "All-reduces are up to 30 % of the latency of decode under tensor parallelism.",
        "note, network",
        None,
        _ran_or_planned(shares.judge_all_reduces, all_reduces.judge_most),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "allreduce-38",
        "With NVLink all-reduces can be 38 % of the latency of a 70B model under TP8.",
        "note, network",
        None,
        _ran_or_planned(shares.judge_nvlink, all_reduces.judge_reached),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "prefill-comm-20-30",
        "Under tensor parallelism 20 to 30 % of prefill is communication.",
        "note, table of winners",
        None,
        _ran_or_planned(shares.judge_prefill_all_reduces, prefill.judge_tp_share),
        "whole",
        NO_STEPS,
    ),
    Claim(
        "prefill-pp-comm-1",
        "Under pipeline parallelism less than 1 % of prefill is communication, the bubble not counted.",
        "note, table of winners",
        None,
        _ran_or_planned(shares.judge_prefill_hops, prefill.judge_pp_share),
        "whole",
        NO_STEPS,
    ),
)
