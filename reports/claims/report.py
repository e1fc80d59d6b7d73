"""Tables of verdicts, of the fabrics used, and of the note's two summaries.

The summaries set right figures beside the note's: Llama-3-70B at TP8 and PP8, and the winner of each phase.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from reports import formatting, machine
from reports.claims.arithmetic import BF16, LARGE_BATCH, LAST_STAGE, LLAMA, MIDDLE_STAGE, PP8, RANKS, TP8
from reports.claims.evidence import OVERALL, ClaimFinding, Finding, overall_findings
from reports.claims.verdict import DECIDED_VERDICTS
from reports.formatting import DASH, decimal_bytes
from reports.machine import distinct_gpu_name
from reports.output import Block, Column, Table
from reports.results import ResultFile
from reports.tp_vs_pp.compare import is_experiment_step
from specs import memory, traffic
from specs.measurement import Measurement

# Verdict tables: arithmetic claims, and timed claims with their intervals.

ARCHITECTURE_ORDER = ("dense", "whole", "moe")
"""Row order: linears, then the layers made of them, then experts."""
FILELESS_PROVENANCES = ("arithmetic", "datasheet")
"""Provenances of findings that need no file."""


def verdict_tables(judged: Sequence[ClaimFinding], *, every: bool = False, more: str = "") -> list[Block]:
    """Return a table per measured claim, and one for all arithmetic claims.

    Args:
        judged: findings to show.
        every: also show findings on single linears, layers and loads.
        more: where to find the hidden findings; empty where none are hidden.
    """
    arithmetic = [one for one in judged if one.finding.provenance in FILELESS_PROVENANCES]
    slugs = dict.fromkeys(one.id for one in judged if one.finding.provenance not in FILELESS_PROVENANCES)
    page = [_claim_table([one for one in judged if one.id == slug], every=every, more=more) for slug in slugs]
    return [*page, _arithmetic_table(arithmetic)] if arithmetic else [*page]


def format_value(value: float | None, unit: str) -> str:
    """Format a value for its unit.

    The text includes the unit, except for ratios and tokens.
    """
    if value is None:
        return DASH
    if unit == "ratio":
        return f"{value:.2f}"
    if unit == "share":
        return formatting.percent(value)
    if unit in ("bytes", "bytes a token"):
        return formatting.decimal_bytes(value)
    return f"{value:,.0f}"


def format_interval(finding: Finding) -> str:
    """Format the interval, or return a dash where there is none."""
    if finding.low is None or finding.high is None:
        return DASH
    return f"{format_value(finding.low, finding.unit)} – {format_value(finding.high, finding.unit)}"


def _claim_table(rows: Sequence[ClaimFinding], *, every: bool, more: str) -> Table:
    shown = [one.finding for one in rows if every or one.finding.scope == OVERALL]
    shown.sort(key=lambda finding: ARCHITECTURE_ORDER.index(finding.architecture or "dense"))
    names = ("gpu", "layers", "dtype", *(("model", "part") if every else ()), "verdict")
    columns = [Column(name, number=False) for name in names]
    unit = next((finding.unit for finding in shown if finding.unit), "")
    columns += [Column(unit or "value"), Column("interval"), Column("from", number=False), Column("interp. ±")]
    columns.append(Column("condition", number=False, prose=True))
    table = Table(
        title=rows[0].id,
        caption=rows[0].statement,
        columns=tuple(columns),
        groups=tuple(tuple(_finding_row(one, every=every) for one in group) for group in _group_by_gpu(shown)),
        notes=(f"{_more_rows_text(len(rows) - len(shown))} on {_hidden_rows_text(rows)}: {more}",)
        if more and len(rows) > len(shown)
        else (),
    )
    return table.without_empty(DASH)


def _hidden_rows_text(rows: Iterable[ClaimFinding]) -> str:
    """Return the subject of the hidden rows, such as `single linears`."""
    found = [one.finding for one in rows if one.finding.scope != OVERALL]
    return f"single {' and '.join(dict.fromkeys(map(_row_kind, found)))}"


def _row_kind(finding: Finding) -> str:
    """Return the kind of a row: linears, layers, or loads of a whole model."""
    if finding.architecture != "whole":
        return "linears"
    return "layers" if finding.scope.startswith("layer") else "loads"


def _more_rows_text(count: int) -> str:
    return "1 more row" if count == 1 else f"{count} more rows"


def _group_by_gpu(findings: Iterable[Finding]) -> list[list[Finding]]:
    groups: dict[tuple[str | None, ...], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.label, finding.dtype, finding.architecture), []).append(finding)
    one_each = all(len(group) == 1 for group in groups.values())
    return [[finding for group in groups.values() for finding in group]] if one_each else list(groups.values())


def _finding_row(finding: Finding, *, every: bool) -> tuple[str, ...]:
    about = (finding.label or finding.gpu or DASH, finding.architecture or DASH, finding.dtype or DASH)
    part = (finding.model or DASH, finding.scope) if every else ()
    off = formatting.percent(finding.interpolation_error)
    figures = (format_value(finding.value, finding.unit), format_interval(finding), finding.provenance, off)
    return (*about, *part, finding.verdict, *figures, finding.condition)


def _arithmetic_table(rows: Sequence[ClaimFinding]) -> Table:
    columns = (
        Column("claim", number=False),
        Column("says", number=False, prose=True),
        Column("verdict", number=False),
        Column("found"),
        Column("unit", number=False),
        Column("condition", number=False, prose=True),
    )
    cells = tuple(
        (
            one.id,
            one.statement,
            one.finding.verdict,
            format_value(one.finding.value, one.finding.unit),
            "" if one.finding.unit == "bytes" else one.finding.unit.removeprefix("bytes "),
            one.finding.condition,
        )
        for one in rows
    )
    return Table(title="arithmetic", caption="recomputed from the models' shapes", columns=columns, groups=(cells,))


# Fabrics and libraries of the note: which of them each file's figures used.
#
# The evidence is the implementations of the cases, the link, and the variables that the run was given.

USED, UNUSED, UNKNOWN, ABSENT = "used", "not used", "unknown", "not present"
"""States of a fabric or library in a file.

`USED`: figures were made with it. `UNUSED`: the machine has it or could, and no figure used it.
`UNKNOWN`: the figures do not tell. `ABSENT`: the machine cannot have it.
"""
NVSWITCH_LINKS = ("NVLink 3", "NVLink 4", "NVLink 5")
"""Links of the GPUs that are sold in boards of eight behind a switch."""
BOARD_RANKS = 8
MULTICAST_IMPLEMENTATIONS = ("symm-multimem",)
RACK_GPUS = ("gb200", "gb300")


@dataclass(frozen=True)
class LibraryAxis:
    """One fabric or library; `state` returns its state in a file."""

    name: str
    state: Callable[[ResultFile], str]


def library_tables(loaded: Sequence[ResultFile]) -> list[Table]:
    """Return a table with a row per file; no table without files."""
    if not loaded:
        return []
    columns = (Column("file of", number=False), *(Column(axis.name, number=False) for axis in LIBRARY_AXES))
    rows = tuple((distinct_gpu_name(file, loaded), *(axis.state(file) for axis in LIBRARY_AXES)) for file in loaded)
    return [
        Table(
            title="libraries and fabric",
            caption="what the figures between ranks were made with",
            columns=columns,
            groups=(rows,),
            notes=(
                f"{USED}: there are figures made with it; {UNUSED}: it may be there, and no figure names it; "
                f"{UNKNOWN}: the figures do not say by which algorithm they came about; {ABSENT}: this machine, or "
                "shardbench, has none",
            ),
        )
    ]


@lru_cache(maxsize=128)
def _implementations(file: ResultFile) -> set[str]:
    """Return the implementations of messages between ranks and of whole models."""
    between = {one.case.implementation for one in file.measurements if one.case.message_bytes}
    return between | {one.case.backend or "" for one in file.measurements if is_experiment_step(one)}


def _algorithms(file: ResultFile) -> str:
    return " ".join(one.algorithm or "" for one in file.measurements).lower()


def _is_gpu(file: ResultFile) -> bool:
    return bool(file.machine.get("gpu"))


def _is_amd(file: ResultFile) -> bool:
    gpu = machine.known_gpu(file)
    return bool(file.machine.get("hip")) or bool(gpu and gpu.arch.startswith("gfx"))


def _communication(file: ResultFile) -> list[Measurement]:
    """Return measurements of messages between ranks and of whole models."""
    return [
        one for one in file.measurements if one.case.ranks > 1 and (one.case.message_bytes or is_experiment_step(one))
    ]


def _nvswitch(file: ResultFile) -> str:
    """Return the state of NVSwitch.

    Boards of eight such GPUs, and racks of them, have no other path between GPUs. Boards of four are wired directly.
    """
    gpu = machine.known_gpu(file)
    if not gpu or gpu.link not in NVSWITCH_LINKS:
        return ABSENT
    hosts = file.machine.get("hosts")
    a_host = max((one.case.ranks for one in _communication(file)), default=1) // (
        hosts if isinstance(hosts, int) else 1
    )
    return USED if _reduces_in_switch(file) or a_host >= (2 if gpu.slug in RACK_GPUS else BOARD_RANKS) else UNUSED


def _reduces_in_switch(file: ResultFile) -> bool:
    """Return whether the switch reduced in any figure."""
    return bool(_implementations(file) & set(MULTICAST_IMPLEMENTATIONS)) or "nvls" in _algorithms(file)


def _nvls(file: ResultFile) -> str:
    """Return the state of NVLS, the reduction in the switch from Hopper on.

    The kernel, or the algorithm that the library chose, shows it.
    """
    gpu = machine.known_gpu(file)
    if not gpu or gpu.link not in NVSWITCH_LINKS[1:]:
        return ABSENT
    if _reduces_in_switch(file):
        return USED
    return UNKNOWN if any(one.algorithm is None for one in _communication(file)) else UNUSED


def _nic(file: ResultFile) -> str:
    """Return the state of the NIC: used between hosts, never within a host."""
    hosts = file.machine.get("hosts")
    return USED if isinstance(hosts, int) and hosts > 1 else UNUSED if _is_gpu(file) else ABSENT


def _rack(file: ResultFile) -> str:
    """Return the state of the rack.

    The GPU identifies the rack. More ranks than one tray holds span the rack.
    """
    gpu = machine.known_gpu(file)
    if not gpu or gpu.slug not in RACK_GPUS:
        return ABSENT
    return USED if max((one.case.ranks for one in file.measurements), default=1) > TRAY_RANKS else UNUSED


TRAY_RANKS = 4
"""GPUs in one tray of an NVL72 rack."""


def _nccl(file: ResultFile) -> str:
    return (
        USED
        if _implementations(file) & {"nccl", "cupy-nccl"}
        else UNUSED
        if _is_gpu(file) and not _is_amd(file)
        else ABSENT
    )


def _rccl(file: ResultFile) -> str:
    return USED if "rccl" in _implementations(file) else UNUSED if _is_amd(file) else ABSENT


def _uccl(file: ResultFile) -> str:
    """Return the state of UCCL.

    UCCL is a plug-in of NCCL and RCCL, loaded by a variable of the run.
    """
    variables = file.machine.get("variables")
    told = str(variables if isinstance(variables, dict) else "").lower()
    return USED if "uccl" in told or "uccl" in _implementations(file) else UNUSED if _is_gpu(file) else ABSENT


LIBRARY_AXES = (
    LibraryAxis("NVSwitch", _nvswitch),
    LibraryAxis("NVLS", _nvls),
    LibraryAxis("NIC, GPU-direct", _nic),
    LibraryAxis("NVL72", _rack),
    LibraryAxis("NCCL", _nccl),
    LibraryAxis("RCCL", _rccl),
    LibraryAxis("UCCL", _uccl),
)


NOTE_CONTEXT = 1
"""Context at which the KV cache of 10,000 sequences takes the note's 400 MB."""
NOTE_DTYPE = "bf16"


class RankBytes(NamedTuple):
    """Bytes on one rank: under TP8, on a middle PP8 stage, and on the last stage."""

    tp: float
    middle: float
    last: float


class NoteMetric(NamedTuple):
    """A table row: the note's three cells, the bytes found, and how they are counted."""

    name: str
    note: tuple[str, str, str]
    found: RankBytes
    counted: str


def summary_tables(judged: Sequence[ClaimFinding]) -> list[Table]:
    """Return the metrics table and the phases table.

    The phases table has a row for each system with a verdict on whole models.
    """
    return [_metrics_table(), _phases_table(judged)]


def note_metrics() -> list[NoteMetric]:
    """Return the rows of the metrics table, at batch 10,000."""
    piece = LARGE_BATCH // RANKS
    ranks = ((TP8, 0), (PP8, MIDDLE_STAGE), (PP8, LAST_STAGE))
    weights = RankBytes(*(memory.stage_weight_bytes(*rank, BF16) for rank in ranks))
    kept_whole = memory.embedding_bytes(TP8, BF16, replicated=True) - memory.embedding_bytes(TP8, BF16)
    tokens = LARGE_BATCH * NOTE_CONTEXT
    cache = RankBytes(*(tokens * memory.kv_bytes_per_token_per_rank(*rank, BF16) for rank in ranks))
    whole, part = (
        memory.residual_bytes(split, rows, BF16) + memory.mlp_activation_bytes(split, rows, BF16)
        for split, rows in ((TP8, LARGE_BATCH), (PP8, piece))
    )
    activations = RankBytes(whole, part, part)
    passes = (1, RANKS, RANKS)
    reads = [count * memory.stage_read_bytes(*rank, BF16) for count, rank in zip(passes, ranks, strict=True)]
    sent = traffic.stage_bytes_sent_per_rank(TP8, LARGE_BATCH, BF16)
    hop = traffic.hop_bytes_sent_per_rank(PP8, LARGE_BATCH, BF16)
    return [
        NoteMetric(
            "weights",
            ("19.5 GB", "19.5 GB", "1x"),
            weights,
            f"all cut; an embedding kept whole adds {decimal_bytes(kept_whole)} to TP",
        ),
        NoteMetric("KV cache", ("400 MB", "400 MB", "1x"), cache, f"{NOTE_CONTEXT} token a sequence, 8 heads of 128"),
        NoteMetric(
            "activations", ("70 MB", "70 MB", "1x"), activations, f"residual, gate and up; PP of {piece} sequences"
        ),
        NoteMetric(
            "total memory", ("~20 GB", "~20 GB", "1x"), _sum_bytes(weights, cache, activations), "of these three"
        ),
        NoteMetric(
            "memory read a step",
            ("19.5 GB", "19.5 GB", "1x"),
            _sum_bytes(RankBytes(*reads), cache),
            f"weights and cache; PP reads its weights for each of {RANKS} micro-batches",
        ),
        NoteMetric(
            "network a step",
            ("44.8 GB", "320 MB", "140x"),
            RankBytes(sent, hop, 0.0),
            f"sent by one rank; a middle stage receives as much: {decimal_bytes(2 * hop)} both ways",
        ),
    ]


def _sum_bytes(*sides: RankBytes) -> RankBytes:
    return RankBytes(*(sum(column) for column in zip(*sides, strict=True)))


def _metrics_table() -> Table:
    columns = (
        Column("metric", number=False),
        *(Column(f"{side}\n{whose}") for side in ("TP 8", "PP 8", "ratio") for whose in ("note", "found")),
        Column("counted", number=False, prose=True),
    )
    return Table(
        title="Llama-3-70B on 8 GPUs",
        caption=f"bytes of one GPU in a decode step of {LARGE_BATCH:,} sequences, {NOTE_DTYPE}, beside the note's",
        columns=columns,
        groups=(tuple(map(_metric_row, note_metrics())),),
        notes=("PP 8: a middle stage – the last one; ratio: TP over PP",),
    )


def _metric_row(one: NoteMetric) -> tuple[str, ...]:
    found = one.found
    stages = [size for size in dict.fromkeys((found.middle, found.last)) if size]
    ratios = dict.fromkeys(f"{found.tp / size:.3g}x" for size in reversed(stages))
    pp = " – ".join(dict.fromkeys(map(decimal_bytes, stages)))
    note_tp, note_pp, note_ratio = one.note
    return (one.name, note_tp, decimal_bytes(found.tp), note_pp, pp, note_ratio, " – ".join(ratios), one.counted)


NOTE_PHASES = (
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


def _phases_table(judged: Sequence[ClaimFinding]) -> Table:
    """Return the phases table: per phase the note's row and a row per system."""
    titles = ("phase", "on", "bottleneck", "TP", "PP", "winner", "from")
    systems = dict.fromkeys(one.label for one in overall_findings(judged, "decode-winner") if one.gpu)
    groups = []
    for note, row in zip(NOTE_PHASES, (_prefill_row, _decode_row), strict=True):
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


def _prefill_row(judged: Sequence[ClaimFinding], label: str) -> tuple[str, ...]:
    tp, pp, winner = (
        _overall_finding(judged, slug, label) for slug in ("prefill-comm-20-30", "prefill-pp-comm-1", "prefill-winner")
    )
    ratio = f" (t(TP) / t(PP) {format_interval(winner)})" if winner and winner.low is not None else ""
    return (
        "prefill",
        label,
        _bottleneck(judged, label, "compute, past {} tokens"),
        _share_cell(tp, "all-reduces"),
        _share_cell(pp, "hops, bubble apart"),
        f"{_winner_cell(winner)}{ratio}",
        _provenance_cell(tp, pp, winner),
    )


def _decode_row(judged: Sequence[ClaimFinding], label: str) -> tuple[str, ...]:
    tp, pp, winner = (
        _overall_finding(judged, slug, label) for slug in ("allreduce-30", "pp-utilisation", "decode-winner")
    )
    return (
        "decode",
        label,
        _bottleneck(judged, label, "memory, up to {} tokens"),
        _share_cell(tp, "all-reduces"),
        _share_cell(pp, "its time a stage is busy", "of "),
        _crossover_cell(winner),
        _provenance_cell(tp, pp, winner),
    )


def _overall_finding(judged: Iterable[ClaimFinding], slug: str, label: str, kind: str = "whole") -> Finding | None:
    """Return the overall finding on a system; None where there is none."""
    found = overall_findings(judged, slug)
    return next((one for one in found if (one.label, one.architecture, one.dtype) == (label, kind, NOTE_DTYPE)), None)


def _bottleneck(judged: Sequence[ClaimFinding], label: str, words: str) -> str:
    knee = _overall_finding(judged, "knee", label, "dense")
    return words.format(f"{knee.value:.0f}") if knee and knee.value else DASH


def _share_cell(one: Finding | None, what: str, link: str = "in ") -> str:
    if one is None or one.value is None:
        return DASH
    figures = formatting.percent(one.value) if one.low is None else format_interval(one)
    return f"{figures} {link}{what}"


def _winner_cell(one: Finding | None) -> str:
    """Return PP where the claim holds, TP where it is refuted."""
    if one is None or one.verdict not in DECIDED_VERDICTS:
        return "not told" if one and one.value is not None else DASH
    if one.verdict == "HOLDS_IF":
        return f"PP {one.condition.partition('; ')[0]}"
    return "PP" if one.verdict == "HOLDS" else "TP"


def _crossover_cell(one: Finding | None) -> str:
    if one and one.verdict == "HOLDS_IF" and one.low is not None and one.high is not None:
        return f"TP below {one.low:.0f}, PP from {one.high:.0f} on"
    return _winner_cell(one)


def _provenance_cell(*found: Finding | None) -> str:
    """Return the provenance of a row: `measured`, or else `modelled`.

    A row is measured where measured steps decide. Assumptions stand with the claims above.
    """
    known = {one.provenance for one in found if one and one.provenance and one.value is not None}
    return DASH if not known else "measured" if known == {"measured"} else "modelled"
