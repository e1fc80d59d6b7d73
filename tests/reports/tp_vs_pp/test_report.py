"""The experiment in the terminal, in JSON, on the page, and in the commands that know nothing of it."""

import json
import re
import shutil
import subprocess
from itertools import pairwise
from math import isfinite

import pytest

from reports.html import steps as html_steps
from reports.results import load
from specs import journal
from specs.parallel import Deployment
from tests.reports import planted
from tests.reports.html.plots import checked_plots
from tests.reports.run_reports import run_reports
from tests.reports.tp_vs_pp.planted_steps import ASYNC, SYNC, TP2, TWO_REPLICAS, busy_shares, simulated_timeline, step

EVIL = "<script>alert('x')</script>"


def steps(passes=4):
    """Decode at 1 and 64, and a prefill: TP takes 10 ms, sync PP 20, async PP 8, and replicas 6.4."""
    sync = {"shares": busy_shares(0.48, 0.5), "timeline": simulated_timeline(SYNC, 3, 4.8e-3, 0.2e-3)}
    shares = {"shares": busy_shares(0.9, 0.05), "timeline": simulated_timeline(ASYNC, 3, 2e-3, 0.1e-3)}
    return [
        *(step(of, ms, 1, passes, **how) for of, ms, how in ((TP2, 10.0, {}), (SYNC, 20.0, sync))),
        *(
            step(of, ms, 64, passes, **how)
            for of, ms, how in ((TP2, 10.0, {}), (SYNC, 20.0, sync), (ASYNC, 8.0, shares))
        ),
        step(TWO_REPLICAS, 6.4, 64, passes, shares={"linears": 1.0}),
        *(step(of, ms, 4, passes, prompt=512, **how) for of, ms, how in ((TP2, 10.0, {}), (ASYNC, 8.0, shares))),
    ]


@pytest.fixture
def path(tmp_path):
    return planted.write(tmp_path / "x.json", steps())


def cells(text, *first):
    """The row that begins with these cells."""
    return next(words for line in text.split("\n") if (words := line.split())[: len(first)] == list(first))


def leaves(value):
    if isinstance(value, dict | list):
        return [leaf for one in (value.values() if isinstance(value, dict) else value) for leaf in leaves(one)]
    return [value]


def test_show_answers_first_and_has_a_row_for_each_deployment(said, path):
    text = said("show", path)
    lines = text.split("\n")
    answer = lines.index("TP against PP")
    assert lines[answer + 1].startswith(
        "  On Planted CPU 9000 (2 ranks over gloo), in decode of llama-3.2-1b cut to 2 of"
    )
    assert cells(text, "1", "tp2") == [
        *("1", "tp2", "10.00", "0.00%", "100", "best", "50.0", "10.0", "5.0", "20.0", "–", "–", "5.0", "10.0")
    ]
    assert cells(text, "1", "pp2-sync") == [
        *("1", "pp2-sync", "20.00", "0.00%", "50.0", "48.0", "–", "–", "–", "2.0", "50.0", "–", "–")
    ]
    # 64 tokens in 6.4 ms are 10,000 a second
    assert cells(text, "64", "tp1x2")[:6] == ["64", "tp1x2", "6.40", "0.00%", "10,000", "best"]
    assert cells(text, "512", "4", "pp2-async2")[:7] == ["512", "4", "pp2-async2", "8.00", "0.00%", "256,000", "best"]
    decode = lines[answer : next(i for i, line in enumerate(lines) if line.startswith("prefill steps"))]
    assert max(len(line) for line in decode if re.match(r" +\d", line)) <= 100


def test_show_has_each_step_once(said, path):
    text = said("show", path)
    assert "\ntp_vs_pp " not in text
    assert len(re.findall(r"^ *64 +tp2 ", text, re.MULTILINE)) == 1
    rows = json.loads(said("show", path, "--format", "json"))
    assert len(rows) == 8
    # 64 tokens in 8 ms
    (row,) = [row for row in rows if row["schedule"] == "async" and row["batch"] == row["tokens"]]
    assert (row["tokens_per_second"], row["seconds_per_token"]) == (pytest.approx(8000), pytest.approx(8e-3))
    assert row["ledger"]["idle"] == pytest.approx(0.05)


def test_a_step_that_was_modelled_is_no_experiment_and_does_not_vanish(said, tmp_path):
    modelled = planted.replace(step(TP2, 10.0), provenance="modelled")
    text = said("show", planted.write(tmp_path / "x.json", [modelled]))
    assert "TP against PP" not in text
    assert "\ntp_vs_pp  " in text


def test_a_file_without_steps_has_no_such_section(said, tmp_path):
    other = planted.write(tmp_path / "x.json", [planted.measured(planted.case(), 1.0)])
    assert "TP against PP" not in said("show", other)
    said("html", other, "-o", tmp_path / "x.html")
    assert "<h2>TP against PP</h2>" not in (tmp_path / "x.html").read_text()
    assert json.loads(said("html", other, "--format", "json"))["experiment"] == []


def test_what_tells_nothing_of_its_time_has_a_row_all_the_same(said, tmp_path):
    bare = planted.replace(step(TP2, 10.0), ledgers=None)
    text = said("show", planted.write(tmp_path / "x.json", [bare]))
    assert cells(text, "1", "tp2") == ["1", "tp2", "10.0", "0.00%", "100"]


def test_json_has_settings_duels_and_runs_and_no_number_that_is_none(said, path):
    told = json.loads(said("html", path, "--format", "json"))
    decode, prefill = told["experiment"]
    assert told["details"][:2] == [decode["answer"], prefill["answer"]]
    assert (decode["decode"], decode["context"], prefill["decode"], prefill["context"]) == (True, 128, False, None)
    assert decode["crossover"] == {"after": 1, "by": 64, "why": ""}
    assert prefill["crossover"] is None
    assert [(one["batch"], one["pp"], one["pp_over_tp"], one["winner"]) for one in decode["duels"]] == [
        (1, "pp2-sync", 2.0, "tp"),
        (64, "pp2-async2", 0.8, "pp"),
    ]
    assert len(decode["runs"]) == 6
    for run in decode["runs"] + prefill["runs"]:
        assert sum(run["ledger"].values()) == pytest.approx(1)
        assert len(run["stages"]) == run["pp"]
    assert all(isfinite(leaf) for leaf in leaves(told) if isinstance(leaf, float))


def test_a_single_pass_writes_no_interval_and_no_winner(said, tmp_path):
    path = planted.write(tmp_path / "x.json", steps(passes=1))
    (decode, _) = json.loads(said("html", path, "--format", "json"))["experiment"]
    assert {(one["low"], one["high"], one["winner"]) for one in decode["duels"]} == {(None, None, None)}
    assert {run["mark"] for run in decode["runs"]} == {None}
    said("html", path, "-o", tmp_path / "x.html")


def plots(page):
    """The rows of each plot by its name."""
    assert checked_plots(page)
    found = re.findall(r'<script type="application/json" data-for="([^"]*)">(.*?)</script>', page)
    return {name: [row for rows in json.loads(spec)["datasets"].values() for row in rows] for name, spec in found}


@pytest.fixture
def page(said, path, tmp_path):
    said("html", path, "-o", tmp_path / "x.html")
    return (tmp_path / "x.html").read_text()


def test_the_page_has_the_answer_at_its_top_and_the_plots_in_their_section(page):
    assert "TP 2 is faster than PP 2 at a batch of 1 (2.00 times)" in page[: page.index("</header>")]
    section = page[page.index("<h2>TP against PP</h2>") : page.index("<h2>Each linear, layer and load</h2>")]
    names = [name.partition("-planted")[0] for name in plots(section)]
    assert names == ["step-time", "throughput", "ledger-decode", "ledger-prefill", *["timeline"] * 4]
    assert section.count(".csv") == 8


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium to open the page in")
def test_a_browser_draws_all_of_them(page, tmp_path):
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--enable-logging=stderr"]
    command = ["chromium", *options, f"--user-data-dir={tmp_path}/profile", "--dump-dom", tmp_path / "x.html"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.stdout.count('<svg xmlns="http://www.w3.org/2000/svg"') == 8
    assert "cannot be drawn" not in ran.stdout.partition("<main>")[2].partition("</main>")[0]
    assert not [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


def test_bars_of_a_ledger_fill_the_step(page):
    (rows,) = [rows for name, rows in plots(page).items() if name.startswith("ledger-decode")]
    bars = {row["bar"] for row in rows}
    assert {bar for bar in bars if bar.startswith("batch 64|")} == {
        *("batch 64|tp2 · 10.0 ms", "batch 64|pp2-sync · 20.0 ms", "batch 64|pp2-async2 · 8.00 ms"),
        "batch 64|tp1x2 · 6.40 ms",
    }
    for bar in bars:
        assert sum(row["share"] for row in rows if row["bar"] == bar) == pytest.approx(1)


def test_the_lines_carry_their_intervals(said, tmp_path):
    """Logs of 8 ± 0.8 %, so a standard error of 0.0046, and t(0.975, 3) is 3.18: a factor of 1.0148."""
    one = step(ASYNC, [8 * 1.008, 8 / 1.008] * 2, 64)
    said("html", planted.write(tmp_path / "y.json", [one]), "-o", tmp_path / "y.html")
    drawn = plots((tmp_path / "y.html").read_text())
    (row,) = next(rows for name, rows in drawn.items() if name.startswith("throughput"))
    names = ("batch", "tokens_per_second", "tokens_per_second_low", "tokens_per_second_high")
    assert [row[name] for name in names] == pytest.approx([64, 8000, 8000 / 1.0148, 8000 * 1.0148], rel=1e-3)
    assert [row[name] for name in ("ms", "ms_low", "ms_high")] == pytest.approx([8, 8 / 1.0148, 8 * 1.0148], rel=1e-3)


def test_a_single_request_lights_one_stage_at_a_time(page):
    (rows,) = [rows for name, rows in plots(page).items() if "pp2-sync-b1-" in name]
    computing = sorted((row["start"], row["end"], row["lane"]) for row in rows if row["kind"] == "compute")
    assert [lane for *_, lane in computing] == ["rank 0 · stage 0", "rank 1 · stage 1"] * 3
    assert all(end <= start for (_, end, _), (start, _, _) in pairwise(computing))


def test_blocks_of_micro_batches_are_numbered_and_shaded(page):
    (rows,) = [rows for name, rows in plots(page).items() if "pp2-async2-b64-" in name]
    assert {(row["micro_batch"], row["shade"]) for row in rows if row["kind"] == "compute"} == {("1", 1), ("2", 0.78)}
    assert {row["shade"] for row in rows if row["kind"] == "idle"} == {html_steps.MIN_OPACITY}
    assert all(row["middle"] == pytest.approx((row["start"] + row["end"]) / 2) for row in rows)


def test_lanes_are_named_by_rank_and_stage(said, tmp_path):
    hybrid = Deployment(tp=2, pp=2, schedule="sync")
    one = step(hybrid, timeline={"seconds": 1.0, "blocks": [[rank, "idle", 0.0, 1.0, 0, -1] for rank in range(4)]})
    said("html", planted.write(tmp_path / "y.json", [one]), "-o", tmp_path / "y.html")
    (rows,) = [rows for name, rows in plots((tmp_path / "y.html").read_text()).items() if name.startswith("timeline")]
    assert [row["lane"] for row in rows] == [f"rank {rank} · stage {rank // 2}" for rank in range(4)]


def test_a_long_timeline_is_drawn_as_far_as_its_first_blocks(said, path, tmp_path, monkeypatch):
    """The fifth block of the pipeline starts when rank 1 has its first message, after 5 ms."""
    monkeypatch.setattr(html_steps, "MAX_BLOCKS", 4)
    said("html", path, "-o", tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    (rows,) = [rows for name, rows in plots(page).items() if "pp2-sync-b1-" in name]
    assert len(rows) == 4
    assert max(row["end"] for row in rows) <= 5.0
    assert "the first 5 ms" in page


def test_what_comes_from_a_file_is_text_on_the_page(said, path, tmp_path):
    text = json.loads(path.read_text())
    for entry in text["benchmarks"]:
        entry["fullname"] += EVIL
        entry["extra_info"] |= {"name": entry["fullname"], "model": EVIL, "backend": EVIL, "implementation": EVIL}
    path.write_text(json.dumps(text))
    said("html", path, "-o", tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "faster" in said("show", path)


def test_two_files_of_one_machine_are_told_apart(said, path, tmp_path):
    other = planted.write(tmp_path / "y.json", steps())
    text = said("html", path, other)
    assert "measured by Planted CPU 9000 (x)" in text
    assert "On Planted CPU 9000 (y) (2 ranks over gloo)" in text
    said("html", path, other, "-o", tmp_path / "x.html")
    names = re.findall(r'class="plot" id="([^"]*)"', (tmp_path / "x.html").read_text())
    assert len(names) == len(set(names)) == 16


def test_compare_tells_deployments_apart(said, path, tmp_path):
    slower = [step(TP2, 12.0, 1, 4), step(SYNC, 20.0, 1, 4)]
    text = said("compare", path, planted.write(tmp_path / "y.json", slower))
    assert re.search(r" tp +.*1\.200 .*slower", text)
    assert re.search(r"sync .*1\.000 .*same", text)
    assert "only in A" in text


def test_another_cut_of_the_model_is_not_compared(capsys, path, tmp_path):
    name = step(TP2, 10.0, 1, 4).case.name
    other = step(TP2, 10.0, 1, 4, layers=4)
    other = planted.replace(other, case=planted.replace(other.case, name=name))
    assert run_reports("compare", path, planted.write(tmp_path / "y.json", [other])) == 2
    assert f"none is the same work, as {name}: layers 2 → 4" in capsys.readouterr().err


def test_a_run_that_was_cut_off_is_recovered_with_ledgers_and_timelines(said, tmp_path):
    cut = tmp_path / "out.json.journal.jsonl"
    journal.append_record(
        cut, "run", {"shardbench_schema": 1, "machine_info": planted.CPU, "options": {}, **planted.MADE}
    )
    for one in steps():
        journal.append_record(cut, "benchmark", planted.entry(one))
    said("recover", cut, "-o", tmp_path / "out.json")
    assert load(tmp_path / "out.json").measurements == tuple(steps())
