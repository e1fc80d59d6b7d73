"""Ledgers as tables, JSON, Markdown, and on the page."""

import json
import re
from math import isfinite

import pytest

from reports import results
from reports.ledger import report
from tests.reports import planted
from tests.reports.ledger.planted_layers import PLAIN, case, latency, parts, timed, whole, write
from tests.reports.run_reports import run_reports

KEYS = {
    *(
        "file",
        "model",
        "tp",
        "pp",
        "tokens",
        "batch",
        "context",
        "dtype",
        "cache",
        "implementation",
        "launch",
        "passes",
    ),
    *("seconds", "floor_share", "items", "parts", "sum_of_parts_seconds", "ratio", "ratio_low", "ratio_high"),
    *("verdict", "missing"),
}
TRITON = {"launch gaps", "unaccounted"}
"""What is left of a ledger without any part."""


@pytest.fixture
def path(tmp_path):
    """Torch at 1 token and in a prompt, torch.compile with one pass, triton with nothing beside it."""
    prompt = {"tokens": 300, "batch": 1, "context": 300}
    found = [
        *[*parts(), whole(14.5), whole(13.5, implementation="torch-compile", passes=1)],
        *[*parts({name: 20 * ms for name, ms in PLAIN.items()}, **prompt), whole(280, **prompt)],
        *[whole(20, implementation="triton"), latency(us=10), *planted.ceilings(read=100e9, peak=1e12)],
    ]
    return write(tmp_path, found)


def drawn(page):
    """The rows of the bars."""
    (spec,) = re.findall(r'<script type="application/json" data-for="layer-[^>]*>(.*?)</script>', page)
    return [row for rows in json.loads(spec)["datasets"].values() for row in rows if "bar" in row]


def leaves(value):
    if isinstance(value, dict | list):
        return [leaf for one in (value.values() if isinstance(value, dict) else value) for leaf in leaves(one)]
    return [value]


def test_json_has_every_layer_and_no_number_that_is_none(said, path):
    rows = json.loads(said("ledger", path, "--format", "json"))
    assert [(row["tokens"], row["implementation"], row["passes"]) for row in rows] == [
        (1, "torch", 6),
        (1, "torch-compile", 1),
        (300, "torch", 6),
        (1, "triton", 6),
    ]
    for row in rows:
        assert row.keys() == KEYS
        assert sum(item["share"] for item in row["items"]) == pytest.approx(1, abs=1e-9)
        assert all(isfinite(leaf) for leaf in leaves(row) if isinstance(leaf, float))
    torch, compiled, _, triton = rows
    assert torch["parts"][5] == {
        "layer": "norm",
        "kernel": "torch_norm",
        "seconds": pytest.approx(1e-4),
        "per_layer": 2,
    }
    assert (torch["ratio"], torch["ratio_low"]) == (pytest.approx(14.5 / 14), pytest.approx(14.5 / 14))
    assert torch["items"][0]["name"] == "linears"
    assert torch["items"][0]["share_low"] == pytest.approx(11.96 / 14.5)
    assert (compiled["ratio_low"], compiled["verdict"], compiled["items"][0]["low"]) == (None, None, None)
    assert (triton["ratio"], triton["sum_of_parts_seconds"], triton["parts"]) == (None, None, [])
    assert triton["missing"] == [f"{', '.join(PLAIN)}, gate_up_swiglu by triton, eager"]


def test_the_table_says_shares_verdict_and_what_is_missing(said, path):
    lines = [line.split() for line in said("ledger", path).split("\n")]
    row = next(line for line in lines if line[:3] == ["1", "512", "torch"])
    # 11.96, 1.49, 0.46, 0.09 and 0.5 of 14.5 ms; 10 ms are the floor
    shares = ["82.5", "±0.0", "10.3", "±0.0", "3.2", "±0.0", "0.6", "±0.0", "–", "3.4", "±0.0"]
    assert row[3:] == ["14.5", *shares, "–", "1.036", "0.00%", "within", "5", "%", "69%", "6"]
    text = " ".join(word for line in lines for word in line)
    assert "a single pass gives no interval" in text
    assert "gate_up_swiglu by triton, eager" in text


def test_show_has_the_ledger_below_the_cases_of_the_layer(said, path):
    text = said("show", path)
    head = next(line for line in text.split("\n") if line.startswith("part "))
    assert head.split()[:4] == ["part", "tokens", "context", "calls"]
    assert text.index("\nlayer  llama-3.2-1b") < text.index("\nledger  llama-3.2-1b") < text.index("\nparts  ")
    assert "\nledger " not in said(
        "show", planted.write(path.parent / "none.json", [planted.measured(planted.case(), 1)])
    )


def test_markdown(said, path):
    text = said("ledger", path, "--format", "markdown")
    assert "### ledger" in text
    assert "| linears |" in text.replace("  ", "")


def test_a_file_without_layers_says_how_to_get_them(capsys, tmp_path):
    path = planted.write(tmp_path / "x.json", [planted.measured(planted.case(), 1.0)])
    assert run_reports("ledger", path) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no whole layer among the cases; `pytest suites/bench_layer.py" in said
    lost = planted.write(tmp_path / "x.json", parts(), failed=[(case().name, "wrong result")])
    assert run_reports("ledger", lost) == 2
    assert "those in it failed or were not run, and `python -m reports show` says why" in capsys.readouterr().err


def test_the_page_has_a_bar_for_each_layer_and_says_it_in_words(said, path, tmp_path):
    page = tmp_path / "x.html"
    said("html", path, "-o", page)
    text = page.read_text()
    section = text[text.index("<h2>Layer</h2>") : text.index("<h2>Each linear, layer and load</h2>")]
    bars = {"1 token · torch", "1 token · torch-compile", "prompt of 300 · torch", "1 token · triton"}
    assert {row["bar"] for row in drawn(section)} == bars
    assert {row["item"] for row in drawn(section) if row["bar"] == "1 token · triton"} == TRITON
    assert "a bf16 layer of llama-3.2-1b at tp 1, 1 token and context 512 takes 13.5 ms with torch-compile" in section
    # 11.96, 1.49, 0.46, 0.09 and 0.5 of 13.5 ms; a fusion gain without an interval is not told
    told = "89% in its linears, 11% in attention, 3.4% in norms, 0.67% between launches, 3.7% in the cache effect."
    assert told in section
    assert "together its parts take" not in section, "nobody knows what a compiler's own parts take"
    without = planted.write(tmp_path / "none.json", [planted.measured(planted.case(), 1.0)])
    said("html", without, "-o", page)
    assert "<h2>Layer</h2>" not in page.read_text()


def test_contexts_are_told_apart_where_there_are_several(said, tmp_path):
    found = [one for context in (512, 4096) for one in (*parts(context=context), whole(14.0, context=context))]
    page = tmp_path / "x.html"
    said("html", write(tmp_path, found), "-o", page)
    assert {row["bar"] for row in drawn(page.read_text())} == {"1 token at 512 · torch", "1 token at 4096 · torch"}


def test_two_files_of_one_machine_are_told_apart(tmp_path):
    found = [planted.write(tmp_path / f"{name}.json", [*parts(), whole(14.0)]) for name in ("a", "b")]
    told = report.build_section(results.load_all(found))
    assert [one.name for one in told.file_ledgers] == ["Planted CPU 9000 (a)", "Planted CPU 9000 (b)"]


def test_each_split_has_a_sentence_at_its_fewest_and_at_its_most_tokens(tmp_path):
    shapes = [(tp, tokens) for tp in (1, 2) for tokens in (1, 32, 125)]
    found = [whole(14.0 + tokens, tp=tp, tokens=tokens) for tp, tokens in shapes]
    said = report.build_section([results.load(write(tmp_path, found))]).sentences()
    assert [re.search(r"tp \d, \d+ tokens?", text).group() for text in said] == [
        "tp 1, 1 token",
        "tp 1, 125 tokens",
        "tp 2, 1 token",
        "tp 2, 125 tokens",
    ]


def test_the_report_in_json_has_the_ledgers(said, path):
    assert len(json.loads(said("html", path, "--format", "json"))["layers"]) == 4


def test_published_times_make_no_ledger(said, tmp_path):
    one = timed(case(), 14.0)
    told = planted.replace(one, provenance="published", framework="vllm")
    assert run_reports("ledger", write(tmp_path, [told], planted.CPU | {"source": "tables"})) == 2
