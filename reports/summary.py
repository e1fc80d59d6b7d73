"""The note's two summary tables, right figures beside its own: Llama-3-70B at TP8 and PP8, and who wins each phase."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reports import units
from reports.arithmetic.readings import BF16
from reports.arithmetic.setting import LARGE_BATCH, LAST, LLAMA, MIDDLE, PP8, TP8, WAYS
from reports.claims_page import span
from reports.finding import DECIDED, Finding, Judged, overall_on
from reports.page import Column, Table
from reports.units import NONE, decimal_bytes
from specs import memory, traffic

CONTEXT = 1
"""Tokens a sequence at which keys and values of 10,000 sequences take the note's 400 MB."""
USUAL = "bf16"


class Sides(NamedTuple):
    """Bytes on one rank under TP8, and under PP8 on a middle stage and on the last."""

    tp: float
    middle: float
    last: float


class Metric(NamedTuple):
    """A row: the note's three cells, what was found, and how that is counted."""

    name: str
    note: tuple[str, str, str]
    found: Sides
    counted: str


def draw_up(judged: Sequence[Judged]) -> list[Table]:
    """Both tables; the second has a row for each system that a claim on whole models was judged on."""
    return [_metrics(), _phases(judged)]


def metrics() -> list[Metric]:
    """The first table's rows, at batch 10,000."""
    piece = LARGE_BATCH // WAYS
    ranks = ((TP8, 0), (PP8, MIDDLE), (PP8, LAST))
    weights = Sides(*(memory.stage_weight_bytes(*rank, BF16) for rank in ranks))
    kept_whole = memory.embedding_bytes(TP8, BF16, replicated=True) - memory.embedding_bytes(TP8, BF16)
    tokens = LARGE_BATCH * CONTEXT
    cache = Sides(*(tokens * memory.kv_bytes_per_token_per_rank(*rank, BF16) for rank in ranks))
    whole, part = (
        memory.residual_bytes(split, rows, BF16) + memory.mlp_activation_bytes(split, rows, BF16)
        for split, rows in ((TP8, LARGE_BATCH), (PP8, piece))
    )
    activations = Sides(whole, part, part)
    passes = (1, WAYS, WAYS)
    reads = [count * memory.stage_read_bytes(*rank, BF16) for count, rank in zip(passes, ranks, strict=True)]
    sent = traffic.stage_bytes_sent_per_rank(TP8, LARGE_BATCH, BF16)
    hop = traffic.hop_bytes_sent_per_rank(PP8, LARGE_BATCH, BF16)
    return [
        Metric(
            "weights",
            ("19.5 GB", "19.5 GB", "1x"),
            weights,
            f"all cut; an embedding kept whole adds {decimal_bytes(kept_whole)} to TP",
        ),
        Metric("KV cache", ("400 MB", "400 MB", "1x"), cache, f"{CONTEXT} token a sequence, 8 heads of 128"),
        Metric("activations", ("70 MB", "70 MB", "1x"), activations, f"residual, gate and up; PP of {piece} sequences"),
        Metric("total memory", ("~20 GB", "~20 GB", "1x"), _sum(weights, cache, activations), "of these three"),
        Metric(
            "memory read a step",
            ("19.5 GB", "19.5 GB", "1x"),
            _sum(Sides(*reads), cache),
            f"weights and cache; PP reads its weights for each of {WAYS} micro-batches",
        ),
        Metric(
            "network a step",
            ("44.8 GB", "320 MB", "140x"),
            Sides(sent, hop, 0.0),
            f"sent by one rank; a middle stage receives as much: {decimal_bytes(2 * hop)} both ways",
        ),
    ]


def _sum(*sides: Sides) -> Sides:
    return Sides(*(sum(column) for column in zip(*sides, strict=True)))


def _metrics() -> Table:
    columns = (
        Column("metric", number=False),
        *(Column(f"{side}\n{whose}") for side in ("TP 8", "PP 8", "ratio") for whose in ("note", "found")),
        Column("counted", number=False, prose=True),
    )
    return Table(
        title="Llama-3-70B on 8 GPUs",
        caption=f"bytes of one GPU in a decode step of {LARGE_BATCH:,} sequences, {USUAL}, beside the note's",
        columns=columns,
        groups=(tuple(map(_metric, metrics())),),
        notes=("PP 8: a middle stage – the last one; ratio: TP over PP",),
    )


def _metric(one: Metric) -> tuple[str, ...]:
    found = one.found
    stages = [size for size in dict.fromkeys((found.middle, found.last)) if size]
    ratios = dict.fromkeys(f"{found.tp / size:.3g}x" for size in reversed(stages))
    pp = " – ".join(dict.fromkeys(map(decimal_bytes, stages)))
    note_tp, note_pp, note_ratio = one.note
    return (one.name, note_tp, decimal_bytes(found.tp), note_pp, pp, note_ratio, " – ".join(ratios), one.counted)


NOTE = (
    ("prefill", "the note", "compute", "20–30% communication", "under 1%, pipeline fills well", "PP", "claimed"),
    (
        "decode",
        "the note",
        "memory, at 10,000",
        "high communication",
        "low communication, bubbles",
        "empirical",
        "claimed",
    ),
)


def _phases(judged: Sequence[Judged]) -> Table:
    """Prefill, then decode: the note's row and one for each system."""
    titles = ("phase", "on", "bottleneck", "TP", "PP", "winner", "from")
    systems = dict.fromkeys(one.label for one in overall_on(judged, "decode-winner") if one.gpu)
    groups = []
    for note, row in zip(NOTE, (_prefill, _decode), strict=True):
        groups.append((note, *(row(judged, label) for label in systems)))
    return Table(
        title="phases",
        caption=f"where time goes and who wins: {LLAMA} over 8 published GPUs, or what ran on this machine",
        columns=tuple(Column(title, number=False, prose=title in ("TP", "PP", "winner")) for title in titles),
        groups=tuple(groups),
        notes=(
            "bottleneck: up to its knee a linear waits for memory, beyond it computes, as it does at 10,000; the rest "
            "is by prefill-comm-20-30, prefill-pp-comm-1, prefill-winner, allreduce-30, pp-utilisation, decode-winner",
        ),
    )


def _prefill(judged: Sequence[Judged], label: str) -> tuple[str, ...]:
    tp, pp, winner = (
        _on(judged, slug, label) for slug in ("prefill-comm-20-30", "prefill-pp-comm-1", "prefill-winner")
    )
    ratio = f" (t(TP) / t(PP) {span(winner)})" if winner and winner.low is not None else ""
    return (
        "prefill",
        label,
        _bound(judged, label, "compute, past {} tokens"),
        _share(tp, "all-reduces"),
        _share(pp, "hops, bubble apart"),
        f"{_winner(winner)}{ratio}",
        _provenance(tp, pp, winner),
    )


def _decode(judged: Sequence[Judged], label: str) -> tuple[str, ...]:
    tp, pp, winner = (_on(judged, slug, label) for slug in ("allreduce-30", "pp-utilisation", "decode-winner"))
    return (
        "decode",
        label,
        _bound(judged, label, "memory, up to {} tokens"),
        _share(tp, "all-reduces"),
        _share(pp, "its time a stage is busy", "of "),
        _crossing(winner),
        _provenance(tp, pp, winner),
    )


def _on(judged: Iterable[Judged], slug: str, label: str, kind: str = "whole") -> Finding | None:
    """The overall finding on a system."""
    found = overall_on(judged, slug)
    return next((one for one in found if (one.label, one.architecture, one.dtype) == (label, kind, USUAL)), None)


def _bound(judged: Sequence[Judged], label: str, words: str) -> str:
    knee = _on(judged, "knee", label, "dense")
    return words.format(f"{knee.value:.0f}") if knee and knee.value else NONE


def _share(one: Finding | None, what: str, link: str = "in ") -> str:
    if one is None or one.value is None:
        return NONE
    figures = units.percent(one.value) if one.low is None else span(one)
    return f"{figures} {link}{what}"


def _winner(one: Finding | None) -> str:
    """PP where the claim holds, TP where it is refuted."""
    if one is None or one.verdict not in DECIDED:
        return "not told" if one and one.value is not None else NONE
    if one.verdict == "HOLDS_IF":
        return f"PP {one.condition.partition('; ')[0]}"
    return "PP" if one.verdict == "HOLDS" else "TP"


def _crossing(one: Finding | None) -> str:
    if one and one.verdict == "HOLDS_IF" and one.low is not None and one.high is not None:
        return f"TP below {one.low:.0f}, PP from {one.high:.0f} on"
    return _winner(one)


def _provenance(*found: Finding | None) -> str:
    """Measured where what ran decides; else modelled, with whatever is assumed in the claims above."""
    known = {one.provenance for one in found if one and one.provenance and one.value is not None}
    return NONE if not known else "measured" if known == {"measured"} else "modelled"
