"""The page: opens alone, says what the verdicts say, draws its plots, and lets nothing from a file run."""

import base64
import csv
import gzip
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser

import pytest

from reports import results
from reports.__main__ import main
from reports.html import page, report
from specs.errors import UserError
from tests.reports import planted
from tests.reports.html.plots import channels_made_of_strings, checked_plots
from tests.reports.planted import measured

TOKENS = (1, 2, 4, 16, 64, 125, 256, 512, 1000, 2048, 4096)
KNEE = 200
EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


def linear(tokens, layer="qkv", implementation="torch", **changes):
    """A 168 MB linear on a machine where 200 tokens make the knee."""
    n, k = 10240, 8192
    named = changes.pop("name", f"x::linear[{layer}-{tokens}-{implementation}]")
    work = {"flops": 2 * tokens * n * k, "hbm_bytes": 2 * (n * k + tokens * (n + k))}
    shape = {"question": "sweep", "layer": layer, "tp": 1, "tokens": tokens, "n": n, "k": k}
    return planted.case(named, implementation=implementation, **{**shape, **work, **changes})


def seconds(tokens, speed=1.0):
    return (50e-6 * max(1, tokens / KNEE) + 1e-6) / speed


def published(path, gpu="NVIDIA H200", memory=141e9, speed=1.0, **changes):
    """A file such as an import writes: three frameworks, one figure a point."""
    machine = planted.H200 | {"gpu": gpu, "gpu_memory_bytes": int(memory), "source": "planted tables 1.0"}
    found = [
        measured(
            linear(tokens, implementation=by, cache="rotated-6", **changes),
            ((seconds(tokens, speed * factor),),),
            provenance="published",
            framework=by,
            maybe_hot=False,
        )
        for by, factor in (("sglang", 0.97), ("trtllm", 1.0), ("vllm", 1.02))
        for tokens in TOKENS
    ]
    return planted.write(path, found, machine)


def own(path, **changes):
    found = [measured(linear(tokens, **changes), 40 * seconds(tokens)) for tokens in TOKENS]
    return planted.write(path, [*planted.ceilings(read=90e9, peak=20e12), *found])


def page_of(tmp_path, *paths):
    out = tmp_path / "report.html"
    main_returns(["html", *map(str, paths), "-o", str(out)])
    return out.read_text()


def main_returns(arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert (ended.value.code or 0) == code


class Reader(HTMLParser):
    """Tags with their attributes, and text by the tag around it."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.inside = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append((self.inside[-1] if self.inside else "", data))


def read(text):
    reader = Reader()
    reader.feed(text)
    return reader


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """The page of this machine beside two published GPUs."""
    folder = tmp_path_factory.mktemp("page")
    paths = [
        own(folder / "own.json"),
        published(folder / "a100.json", gpu="NVIDIA A100-SXM4-80GB", memory=80e9, speed=0.5),
        published(folder / "h200.json"),
    ]
    return page_of(folder, *paths)


def test_the_answer_stands_at_the_top(three):
    head = three[three.index("<header>") : three.index("</header>")]
    assert "<h1>Tensor parallel or pipeline parallel?</h1>" in head
    assert '<p class="answer">Not measured: no file here has steps of a whole model' in head
    below = head.partition("<h2>Do 125 tokens take as long as 1000?</h2>")[2]
    answer = re.search(r'<p class="second answer">(.*?)</p>', below).group(1)
    assert answer.startswith(
        "No, refuted on every system here: 1000 tokens take 4.9 times as long as 125 through a dense"
    )
    assert "a100_sxm 4.9" in below
    assert "h200_sxm 4.9" in below


def test_it_loads_nothing_from_anywhere(three):
    for tag, attributes in read(three).tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    assert "@import" not in three[: three.index("</style>")]
    assert len(three.encode()) < 2_000_000


def test_every_plot_is_one_that_vega_lite_takes(three):
    assert len(checked_plots(three)) == 5


def test_each_plot_has_its_data_one_click_away(three):
    reader = read(three)
    plots = [a["id"] for tag, a in reader.tags if tag == "div" and a.get("class") == "plot"]
    links = {a["download"]: a["href"] for tag, a in reader.tags if tag == "a" and "download" in a}
    assert len(plots) == 5, plots  # three machines, the roofline, the generations
    assert {f"{plot}.csv" for plot in plots} == set(links)
    rows = list(csv.DictReader(io.StringIO(content(links["time-h200-sxm-bf16.csv"]))))
    by = {row["by"] for row in rows}
    assert by == {"sglang", "trtllm", "vllm", "roofline"}
    (thousand,) = [row for row in rows if row["by"] == "trtllm" and row["tokens"] == "1000"]
    assert float(thousand["us"]) == pytest.approx(251.0)


def content(link):
    return base64.b64decode(link.partition("base64,")[2]).decode()


def test_the_plots_show_roofline_knee_and_logarithmic_axes(three):
    specs = {a["data-for"]: None for tag, a in read(three).tags if tag == "script" and "data-for" in a}
    assert len(specs) == 5
    found = re.search(r'data-for="time-h200-sxm-bf16">(.*?)</script>', three, re.S).group(1)
    spec = json.loads(found)
    marks = [layer["mark"] if isinstance(layer["mark"], str) else layer["mark"]["type"] for layer in spec["layer"]]
    assert {"rect", "rule", "line"} <= set(marks)
    scales = [layer["encoding"][axis]["scale"]["type"] for layer in spec["layer"][-1:] for axis in ("x", "y")]
    assert scales == ["log", "log"]
    assert "knee at 2" in three
    assert "dashed: the datasheet roofline" in three
    assert "dashed: the measured roofline" in three


def test_what_comes_from_a_file_is_text(tmp_path):
    path = published(tmp_path / "evil.json", gpu=f"NVIDIA {EVIL}")
    text = json.loads(path.read_text())
    for entry in text["benchmarks"]:
        for field in ("name", "fullname"):
            entry[field] = f"{EVIL} {entry['extra_info']['tokens']} {entry['extra_info']['implementation']}"
        entry["extra_info"] |= {"name": entry["fullname"], "layer": f"{EVIL}", "model": EVIL}
        entry["extra_info"]["implementation"] += EVIL
    text["machine_info"]["source"] = EVIL
    text["shardbench"] |= {"not_run": [{"case": EVIL, "reason": EVIL}], "notes": [EVIL]}
    path.write_text(json.dumps(text))
    page = page_of(tmp_path, path)
    reader = read(page)
    assert not [tag for tag, _ in reader.tags if tag == "img"]
    scripts = [text for tag, text in reader.texts if tag == "script"]
    assert not [text for text in scripts if text.startswith("alert")]
    assert "&lt;script&gt;alert" in page
    assert [tag for tag, _ in reader.tags].count("script") == page.count("<script")
    assert len([a for tag, a in reader.tags if tag == "script" and "data-for" not in a]) == 2  # Vega's and ours


def test_a_spreadsheet_is_given_no_formula(tmp_path):
    path = published(tmp_path / "a.json")
    path.write_text(path.read_text().replace('"trtllm"', '"=cmd|calc"'))
    links = [a["href"] for tag, a in read(page_of(tmp_path, path)).tags if tag == "a" and "download" in a]
    cells = [cell for link in links for row in csv.reader(io.StringIO(content(link))) for cell in row]
    assert "'=cmd|calc" in cells
    assert not [cell for cell in cells if cell.startswith("=")]


def test_without_published_files_it_says_what_is_missing(tmp_path):
    page = page_of(tmp_path, own(tmp_path / "own.json"))
    assert "No published GPU stands beside this" in page
    assert ".[silicon]" in page


def test_without_times_over_tokens_it_says_so(tmp_path):
    page = page_of(tmp_path, planted.write(tmp_path / "a.json", planted.ceilings()))
    assert "Not measured: no file here has times of 125 and of 1000 tokens" in page
    assert 'class="plot"' not in page


def test_formats_are_answered_apart(tmp_path):
    paths = [published(tmp_path / "bf16.json"), published(tmp_path / "fp8.json", dtype="fp8")]
    head = page_of(tmp_path, *paths).partition("</header>")[0]
    assert "through a dense bf16 linear" in head
    assert "through a dense fp8 linear" in head


def test_a_page_that_would_be_too_large_leaves_out_single_linears(tmp_path, monkeypatch):
    told = report.build_report([results.load(published(tmp_path / "a.json"))])
    whole = page.render_page(told)
    assert "qkv tp1</td>" in whole
    monkeypatch.setattr(page, "MAX_BYTES", len(whole) - 1)
    less = page.render_page(told)
    assert "qkv tp1</td>" not in less
    assert "Too many for one page" in less


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """Calls that bundled the scripts, with a cache in `tmp_path`."""
    calls = []

    def bundle():
        calls.append("bundled")
        return "script"

    monkeypatch.setattr(page.vl_convert, "javascript_bundle", bundle)
    monkeypatch.setattr(page, "fetch_cached", partial(page.fetch_cached, folder=tmp_path / "cache"))
    return calls


def test_the_scripts_are_bundled_once_for_all_pages(bundled):
    assert page._vega() == page._vega()
    assert bundled == ["bundled"]


def test_the_scripts_are_bundled_for_each_page_where_no_cache_can_be_written(tmp_path, bundled):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert gzip.decompress(base64.b64decode(page._vega())) == b"script"
    page._vega()
    assert bundled == ["bundled", "bundled"]


def test_another_version_bundles_its_own_scripts(bundled, monkeypatch):
    page._vega()
    monkeypatch.setattr(page.metadata, "version", lambda _: "999.0")
    page._vega()
    assert bundled == ["bundled", "bundled"]


def test_no_channel_is_left_for_altair_to_make_of_a_string(tmp_path):
    files = [own(tmp_path / "own.json"), published(tmp_path / "a100.json", gpu="NVIDIA A100-SXM4-80GB", memory=80e9)]
    told = report.build_report([results.load(path) for path in (*files, published(tmp_path / "h200.json"))])
    assert channels_made_of_strings(lambda: page.render_page(told)) == []


def test_the_same_in_the_terminal(tmp_path, capsys):
    paths = [own(tmp_path / "own.json"), published(tmp_path / "h200.json")]
    main_returns(["html", *map(str, paths)])
    said = capsys.readouterr()
    assert said.out.startswith("Tensor parallel or pipeline parallel?\n  Not measured: no file here has steps")
    assert "\n\nDo 125 tokens take as long as 1000?\n  No, refuted on every system here" in said.out
    assert "tokens-125-vs-1000" in said.out
    assert "-o report.html" in said.err
    main_returns(["html", *map(str, paths), "--format", "json"])
    told = json.loads(capsys.readouterr().out)
    assert told["answer"].startswith("Not measured: no file here has steps")
    assert told["tokens"]["answer"].startswith("No, refuted")
    assert {one["id"] for one in told["claims"]} >= {"tokens-125-vs-1000", "kv-formula"}


def test_writing_the_page_says_both_answers(tmp_path, capsys):
    path, out = published(tmp_path / "h200.json"), tmp_path / "report.html"
    main_returns(["html", str(path), "-o", str(out)])
    said = capsys.readouterr().out
    assert said.startswith("Tensor parallel or pipeline parallel?\n  Not measured")
    assert "Do 125 tokens take as long as 1000?\n  No, refuted" in said
    assert said.endswith(f"{out}: written\n")


def test_it_does_not_overwrite_what_it_reads(tmp_path, capsys):
    path = published(tmp_path / "a.json")
    main_returns(["html", str(path), "-o", str(path)], code=2)
    assert "would overwrite a result file" in capsys.readouterr().err


def test_a_file_of_a_hundred_megabytes_is_refused_unread(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as stream:
        stream.truncate(100 * 10**6)
    with pytest.raises(UserError, match=r"large.json: 95 MiB, of 64 that are read"):
        results.read_json(path)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium to open the page in")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_every_plot_and_complains_of_nothing(tmp_path, three, width):
    path = tmp_path / "report.html"
    path.write_text(three)
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=10000",
        "--enable-logging=stderr",
    ]
    ran = subprocess.run(
        [
            "chromium",
            *arguments,
            f"--user-data-dir={tmp_path}/profile",
            f"--window-size={width},900",
            "--dump-dom",
            path,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.stdout.count('<svg xmlns="http://www.w3.org/2000/svg"') == 5
    assert "cannot be drawn" not in ran.stdout.partition("<main>")[2].partition("</main>")[0]
    assert not [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


def test_generations_run_from_the_oldest(tmp_path):
    paths = [published(tmp_path / "h.json"), published(tmp_path / "a.json", "NVIDIA A100-SXM4-80GB", 80e9, speed=0.5)]
    found = report.build_report([results.load(path) for path in paths]).generations
    first, second = [one for one in found.entries if one.tokens == 1]
    assert (first.gpu.slug, second.gpu.slug) == ("a100_sxm", "h200_sxm")
    assert (first.speedup, second.speedup) == (1, pytest.approx(2))
    assert second.expected_speedup == pytest.approx(4.8e12 / 2.039e12, rel=1e-6)  # one token: memory binds both
    last = [one for one in found.entries if one.tokens == 4096][-1]
    assert last.expected_speedup == pytest.approx(989.5 / 312, rel=1e-6)  # 4096: arithmetic does


def test_a_hot_linear_is_not_compared_across_generations(tmp_path):
    loaded = [
        results.load(published(tmp_path / "h.json")),
        results.load(published(tmp_path / "b.json", "NVIDIA B200", 180e9)),
    ]
    assert report.build_report(loaded).generations
    hot = replace(loaded[0], measurements=tuple(replace(one, maybe_hot=True) for one in loaded[0].measurements))
    assert report.build_report([hot, loaded[1]]).generations is None
