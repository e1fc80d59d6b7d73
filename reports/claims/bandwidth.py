"""Claim that TP uses all of the memory bandwidth in decode, judged per shard.

The figure is bytes/s over the bandwidth at one token. A linear then only streams its weights, and a whole layer its
weights and its cache. The bandwidth is the read ceiling of the same run. Published times come without a ceiling, so
the datasheet's bandwidth is used.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf

from reports import formatting
from reports.claims import evidence as claims_evidence
from reports.claims.evidence import DECODE_QUESTIONS, Evidence, Finding, part_name
from reports.claims.tokens import MAX_NAMED, TimeRatio, overall_interval, ratio_finding
from reports.claims.verdict import DECIDED_VERDICTS, Verdict, verdict_by_implementation, verdict_within
from specs import statistics
from specs.measurement import Case, Measurement

FULL_SHARE = 0.95
"""Minimum share of the bandwidth that counts as all of it."""
MAX_SHARE = 1.05
"""Share above which a figure says nothing of memory.

A cache must have helped, or the ceiling is too low.
"""
OF_DATASHEET = "of the datasheet's bandwidth"
UNREACHED = f"{OF_DATASHEET}, which no memory reaches in full"
ABOVE_CEILING = f"over {MAX_SHARE:.0%} of the read ceiling: a cache held some of it, or the ceiling is too low"
NO_CEILING = "no read ceiling in this file: run suites/bench_ceilings.py with it"
NO_DATASHEET = "no bandwidth is known of it: specs/gpus.py has no row for it"
NO_SHARDS = "tp 1 alone is no tensor parallelism: measure with --tp 2 or more"
ShardKey = tuple[str, str]
"""Model, and shard or layer, such as `o tp8`."""


def judge_bandwidth(evidences: Iterable[Evidence]) -> Iterator[Finding]:
    """Judge each GPU, format and kind of layer: overall, then per shard.

    Experts are left out, as they stream less.
    """
    for evidence in evidences:
        if evidence.single_token:
            rows = [_shard_finding(evidence, place, found) for place, found in _shards(evidence).items()]
            yield _overall_finding(evidence, rows)
            yield from rows


def _shards(evidence: Evidence) -> dict[ShardKey, list[Measurement]]:
    """Return each shard once per implementation.

    Times from inside a graph come first, then those of the first table that has the shard.
    """
    found: dict[ShardKey, dict[str, Measurement]] = {}
    for one in sorted(
        evidence.single_token, key=lambda one: (one.case.launch != "graph", DECODE_QUESTIONS.index(one.case.question))
    ):
        found.setdefault(_shard_key(one.case), {}).setdefault(one.case.implementation, one)
    return {place: list(by.values()) for place, by in found.items()}


def _shard_key(case: Case) -> ShardKey:
    context = case.context if case.op == "layer" else None
    return case.model or "", part_name(case.layer or "", case.tp or 1, context)


def _shard_finding(evidence: Evidence, place: ShardKey, found: Sequence[Measurement]) -> Finding:
    """Judge one shard by every implementation with a credible figure."""
    blank = replace(evidence.blank_finding("share"), model=place[0], scope=place[1])
    known = [share for one in found if (share := _bandwidth_share(evidence, one))]
    if not known:
        return replace(blank, condition=NO_DATASHEET if evidence.published else NO_CEILING)
    sound = [share for share in known if not _why_doubtful(share)]
    shares = sound or known
    interval = overall_interval(shares, published=evidence.published)
    verdict, condition = verdict_by_implementation(
        interval, [(one.implementation, one.own_interval) for one in shares], FULL_SHARE, inf, f"{FULL_SHARE:.0%}"
    )
    if not sound:
        verdict, condition = "UNDERPOWERED", _why_doubtful(known[0])
    condition = "; ".join(filter(None, (condition, OF_DATASHEET if evidence.published else "")))
    return ratio_finding(blank, shares, verdict, condition, interval)


def _bandwidth_share(evidence: Evidence, one: Measurement) -> TimeRatio | None:
    """Return bytes/s over the bandwidth by one implementation.

    None where the bandwidth is unknown.
    """
    if evidence.published:
        if not evidence.datasheet:
            return None
        value = one.bytes_per_second / evidence.datasheet.hbm_bytes_per_second
        return TimeRatio(one.case.implementation, value, None, [one])
    reading = evidence.read_measurement
    if not reading:
        return None
    bytes_over = one.case.hbm_bytes / reading.case.hbm_bytes
    ends = statistics.ratio_interval(one.seconds, reading.seconds)
    return TimeRatio(
        one.case.implementation,
        one.bytes_per_second / reading.bytes_per_second,
        (bytes_over * ends[0], bytes_over * ends[1]) if ends else None,
        [one, reading],
    )


def _why_doubtful(share: TimeRatio) -> str:
    """Return why a share is not credible; empty where it is."""
    one = share.used[0]
    if one.maybe_hot:
        return claims_evidence.MAYBE_HOT
    if share.value > MAX_SHARE:
        return ABOVE_CEILING
    return claims_evidence.ODD_TIMES if one.doubts else ""


def _overall_finding(evidence: Evidence, rows: Sequence[Finding]) -> Finding:
    """Return the overall finding over shards of more than one rank.

    At tp 1 there is no tensor parallelism.
    """
    shards = [row for row in rows if row.scope.split()[1] != "tp1"]
    decided = [row for row in shards if row.verdict in DECIDED_VERDICTS]
    judged = [row for row in decided if row.provenance != "interpolated"] or decided  # at one token only shapes can be
    if not shards:
        return replace(evidence.blank_finding("share"), condition=NO_SHARDS)
    if not judged:
        whole = claims_evidence.merge_findings(evidence, shards, "share")
        verdict: Verdict = "NOT_MEASURED" if whole.value is None else "UNDERPOWERED"
        return replace(whole, verdict=verdict, low=None, high=None, condition=shards[0].condition)
    whole = claims_evidence.merge_findings(evidence, judged, "share")
    over = _coverage_text(evidence, shards, judged, shapes=len(decided) - len(judged))
    found = verdict_within(whole.interval, FULL_SHARE, inf)
    if found in DECIDED_VERDICTS:
        return replace(whole, verdict=found, condition=over)
    return replace(whole, verdict="HOLDS_IF", condition=f"{_reaching_text(judged)}; {over}")


def _reaching_text(judged: Sequence[Finding]) -> str:
    """Return how many shards reach the full bandwidth, naming some of them."""
    some = [row for row in judged if row.verdict != "REFUTED"]
    named = ", ".join(f"{row.model} {row.scope} {row.condition}".rstrip() for row in some[:MAX_NAMED])
    return f"{len(some)} of {len(judged)} reach {FULL_SHARE:.0%}: {named}"


def _coverage_text(evidence: Evidence, shards: Sequence[Finding], judged: Sequence[Finding], shapes: int) -> str:
    """Return the numbers of shards used and left out, and the bandwidth's origin."""
    hot = sum(1 for row in shards if claims_evidence.MAYBE_HOT in row.condition)
    undecided = len(shards) - len(judged) - hot - shapes
    reasons = {"maybe hot": hot, "undecided": undecided, "of interpolated shape": shapes}
    out = ", ".join(f"{count} {why}" for why, count in reasons.items() if count)
    what = "layer" if evidence.architecture == "whole" else "shard"
    said = [f"over {formatting.pluralize(len(judged), what)}", f"left out {out}" if out else ""]
    return "; ".join(filter(None, (*said, UNREACHED if evidence.published else "")))
