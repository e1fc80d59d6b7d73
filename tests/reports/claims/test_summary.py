"""The note's two summary tables with figures of ours, those of the first worked out by hand."""

import pytest

from reports.claims import registry, report
from reports.results import load
from tests.reports import planted
from tests.reports.claims.planted_prompts import prompt_attention, with_cheaper_all_reduces
from tests.reports.plan import planted_parts
from tests.reports.tp_vs_pp.planted_steps import ASYNC, TP2, step

LAYER, ENDS, HIDDEN = 855_654_400, 1_050_673_152, 8192
"""Parameters of a layer, and of the embedding or the head of Llama-3-70B."""


def test_bytes_of_one_gpu_at_batch_10_000():
    found = {one.name: one.found for one in report.note_metrics()}
    norm = HIDDEN
    weights = found["weights"]
    assert weights.middle == 2 * 10 * LAYER  # 17.11 GB
    assert weights.last == 2 * (10 * LAYER + ENDS + norm)  # 19.21 GB
    assert weights.tp == pytest.approx(17.64e9, rel=1e-3)
    # 2 · 80 · 8 heads · 128 · 2 bytes = 327,680 a token over eight ranks
    assert set(found["KV cache"]) == {10_000 * 327_680 / 8}
    # residual 16,384 bytes a token, gate and up 57,344 elements: an eighth of them, or an eighth of the tokens
    assert found["activations"] == (
        10_000 * (16_384 + 2 * 57_344 / 8),
        1_250 * (16_384 + 2 * 57_344),
        1_250 * (16_384 + 2 * 57_344),
    )
    assert found["memory read a step"].middle == 8 * 2 * 10 * LAYER + 10_000 * 327_680 / 8
    assert found["network a step"].tp == 10_000 * 4_587_520  # 45.9 GB
    assert found["network a step"].middle == 10_000 * 16_384  # 163.8 MB, and as much received: 328 MB
    total = found["total memory"]
    assert total.middle == sum(found[name].middle for name in ("weights", "KV cache", "activations"))


def test_the_first_table_stands_beside_the_notes_figures():
    table, _ = report.summary_tables([])
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["network a step"][:6] == ("44.8 GB", "45.88 GB", "320 MB", "163.8 MB", "140x", "280x")
    assert "327.7 MB both ways" in rows["network a step"][6]
    assert rows["weights"][:6] == ("19.5 GB", "17.64 GB", "19.5 GB", "17.11 GB – 19.21 GB", "1x", "0.918x – 1.03x")
    assert rows["memory read a step"][4:6] == ("1x", "0.115x – 0.13x")


def test_without_files_the_second_table_has_the_note_alone():
    _, table = report.summary_tables(registry.judge_claims([]))
    assert [row[:2] for row in table.rows] == [("prefill", "the note"), ("decode", "the note")]


def test_a_row_for_each_system(tmp_path):
    gpu = planted_parts.write(tmp_path / "gpu.json")
    steps = [step(TP2, 10.0, 64, 4), step(ASYNC, 12.0, 64, 4), step(TP2, 10.0, 1024, 4), step(ASYNC, 8.0, 1024, 4)]
    steps += [step(TP2, 10.0, 4, prompt=512), step(ASYNC, 20.0, 4, prompt=512, shares={"linears": 0.98, "hop": 0.02})]
    cpu = planted.write(tmp_path / "cpu.json", steps)
    _, table = report.summary_tables(registry.judge_files([load(gpu), load(cpu)]))
    rows = {row[:2]: row for row in table.rows}
    assert set(rows) == {
        (phase, on) for phase in ("prefill", "decode") for on in ("the note", "h200_sxm", "Planted CPU 9000")
    }
    # 88 sequences on the planted GPU, see tests/reports/planned; on the CPU between 64 and 1024
    assert rows["decode", "h200_sxm"][5:] == ("TP below 88, PP from 88 on", "modelled")
    assert rows["decode", "Planted CPU 9000"][5:] == ("TP below 64, PP from 1024 on", "measured")
    assert rows["prefill", "Planted CPU 9000"][3:] == (
        "20% – 20% in all-reduces",
        "2.0% – 2.0% in hops, bubble apart",
        "TP (t(TP) / t(PP) 0.50 – 0.50)",
        "measured",
    )
    # the planted GPU has no attention of prompts
    assert rows["prefill", "h200_sxm"][3:] == ("–", "–", "–", "–")


def test_who_reads_prompts_faster_is_said_with_how_many(tmp_path):
    """All-reduces at a twentieth, see tests/reports/planned: PP is ahead with 32 prompts and more."""
    cheap = with_cheaper_all_reduces([*planted_parts.all_parts(), *prompt_attention()], 20)
    _, table = report.summary_tables(registry.judge_files([load(planted_parts.write(tmp_path / "gpu.json", cheap))]))
    (winner,) = [row[5] for row in table.rows if row[:2] == ("prefill", "h200_sxm")]
    assert winner.startswith("PP from 32 prompts of 1024 to 8192 tokens on (t(TP) / t(PP) 0.71 – ")


def test_both_tables_stand_in_the_report_and_on_the_page(tmp_path, said):
    path = planted.write(tmp_path / "cpu.json", [step(TP2, 10.0, 64, 4), step(ASYNC, 12.0, 64, 4)])
    text = said("html", path, "--format", "markdown")
    said("html", path, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for title in ("libraries and fabric", "Llama-3-70B on 8 GPUs", "phases"):
        assert f"# {title}\n" in text
        assert f"<h3>{title}</h3>" in page
    assert said("claims", path, "--format", "markdown").count("# phases\n") == 1
