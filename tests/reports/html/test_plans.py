"""Plans on the page: plots with their points, each a link away from the cases behind it."""

import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess
from collections import Counter

import pytest

from reports import results
from reports.html import page as html_page
from reports.html import plans, report
from reports.plan import tables
from tests.reports import planted
from tests.reports.html.plots import channels_made_of_strings, checked_plots
from tests.reports.plan import planted_parts

L40S = planted_parts.PUBLISHED | {"gpu": "NVIDIA L40S", "gpu_memory_bytes": 48_000_000_000}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plans")
    slow = [one for one in planted_parts.all_parts(factor=2.0) if (one.case.op, one.case.ranks) != ("all_reduce", 8)]
    paths = [planted_parts.write(folder / "h200.json"), planted_parts.write(folder / "l40s.json", slow, L40S)]
    return report.build_report(results.load_all(paths))


@pytest.fixture(scope="module")
def page(told):
    return html_page.render_page(told)


def section(page):
    return page[page.index("<h2>TP or PP, planned</h2>") :].partition("</section>")[0]


def spec(page, name):
    return json.loads(re.search(rf'data-for="{name}">(.*?)</script>', page, re.S).group(1))


def values(page, name):
    (rows,) = spec(page, name)["datasets"].values()
    return rows


def test_both_gpus_have_a_plot_and_the_crossovers_one(page):
    found = [name for name in checked_plots(page) if name.startswith("plan-")]
    assert found == ["plan-crossovers", "plan-h200-sxm", "plan-l40s"]


def test_a_lane_shows_what_the_plan_found(told, page):
    (row,) = values(page, "plan-crossovers")  # the other has no crossover
    found = told.plans.planned[0].plan.crossover
    assert (row["low"], row["batch"], row["high"]) == (found.low, found.batch, found.high)
    assert (row["from"], row["to"]) == found.batch_range
    layers = spec(page, "plan-crossovers")["layer"]
    assert {layer["encoding"]["x"]["scale"]["type"] for layer in layers} == {"log"}
    assert {layer["encoding"]["x"]["axis"]["title"] for layer in layers} == {"batch (sequences, logarithmic)"}


def test_the_notes_under_plots_say_what_they_leave_out(page):
    text = html.unescape(section(page))
    assert "within it the lead depends on whose kernels run and may change at tile sizes" in text
    assert f"as far as memory holds them; {tables.UNSEEN_NOTE}" in text
    assert "the Pareto front among the batches asked for" in text


def test_a_dot_is_the_fastest_of_its_split_and_schedule_at_a_batch(told, page):
    points = [one for one in told.plans.planned[0].plan.points if one.fits]
    rows = values(page, "plan-h200-sxm")
    assert all(one["kind"] in plans.KIND_COLOURS for one in rows)
    cells = [(one.batch, tables.parallelism_label(one.deployment), one.deployment.schedule) for one in points]
    assert len(rows) == len(set(cells))
    (one,) = [row for row in rows if (row["split"].startswith("pp8-async"), row["batch"]) == (True, 64)]
    best = min(p.seconds for p in points if (p.batch, p.deployment.pp, p.deployment.schedule) == (64, 8, "async"))
    assert one["ms"] == pytest.approx(1e3 * best, rel=1e-4)
    assert one["tokens_per_second"] == pytest.approx(64 / best, rel=1e-4)


def test_the_front_is_marked_and_nothing_else(told, page):
    front = {(str(one.deployment), one.batch) for one in told.plans.planned[0].plan.front}
    marked = {(row["split"], row["batch"]) for row in values(page, "plan-h200-sxm") if row.get("front")}
    assert marked == front


def test_what_does_not_fit_is_absent(told, page):
    tight = {(str(one.deployment), one.batch) for one in told.plans.planned[1].plan.points if not one.fits}
    assert tight
    assert not tight & {(row["split"], row["batch"]) for row in values(page, "plan-l40s")}


def test_both_axes_are_logarithmic_the_same_for_all_and_have_units(page):
    axes = [
        {axis: layer["encoding"][axis] for axis in ("x", "y")}
        for name in ("plan-h200-sxm", "plan-l40s")
        for layer in spec(page, name)["layer"]
    ]
    assert all(axis == axes[0] for axis in axes)
    assert [axes[0][axis]["scale"]["type"] for axis in ("x", "y")] == ["log", "log"]
    assert [axes[0][axis]["axis"]["title"] for axis in ("x", "y")] == [
        "ms a token (logarithmic)",
        "tokens/s (logarithmic)",
    ]


def test_every_link_leads_to_one_place_on_the_page(page):
    places = Counter(re.findall(r' id="([^"]*)"', page))
    links = re.findall(r'href="#([^"]*)"', page)
    clicks = [row["cases"][1:] for gpu in ("h200-sxm", "l40s") for row in values(page, f"plan-{gpu}") if "cases" in row]
    assert clicks
    assert links
    assert {place: places[place] for place in (*links, *clicks)} == dict.fromkeys((*links, *clicks), 1)


def test_a_point_leads_to_the_names_of_its_cases_and_their_file(told, page):
    one = told.plans.planned[0]
    point = next(p for p in one.plan.points if (p.batch, p.deployment.tp) == (64, 8))
    (row,) = [row for row in values(page, "plan-h200-sxm") if (row["batch"], row["split"]) == (64, "tp8")]
    found = re.search(rf'<tr id="{row["cases"][1:]}">(.*?)</tr>', page).group(1)
    assert "<td>tp8</td>" in found
    for part, cases in point.breakdown.cases.items():
        if not cases:
            continue
        number = re.search(rf'{part} <a href="#(h200-sxm-\d+)">', found).group(1)
        source = re.search(rf'<tr id="{number}">(.*?)</tr>', page, re.S).group(1)
        assert f"<td>{part}</td>" in source
        assert source.partition('class="cases">')[2].partition("<")[0].split("\n") == list(cases)
    assert f"cases in {one.plan.profile.paths[0]}" in section(page)
    assert f"<code>{one.reproduce_command} --format json</code>" in section(page)


def test_the_answers_stand_in_words_above_their_plots(told, page):
    text = section(page)
    for one in told.plans.planned:
        assert text.index(one.sentence) < text.index(f'id="plan-{one.name.replace("_", "-")}"')


def test_the_data_is_one_click_away(page):
    links = re.findall(r'<a download="(plan-[^"]*).csv" href="([^"]*)"', page)
    rows = {name: list(csv.DictReader(io.StringIO(content(link)))) for name, link in links}
    assert set(rows) == {"plan-crossovers", "plan-h200-sxm", "plan-l40s"}
    assert len(rows["plan-h200-sxm"]) == len(values(page, "plan-h200-sxm"))
    assert "cases" not in rows["plan-h200-sxm"][0]


def content(link):
    return base64.b64decode(link.partition("base64,")[2]).decode()


def test_no_channel_is_left_for_altair_to_make_of_a_string(told):
    assert channels_made_of_strings(lambda: plans.template_context(told.plans)) == []


def test_a_page_without_plans_has_no_such_section(tmp_path):
    told = report.build_report([results.load(planted.write(tmp_path / "a.json", planted.ceilings()))])
    assert "TP or PP, planned" not in html_page.render_page(told)


def test_a_page_that_would_be_too_large_says_where_the_cases_are(told, page, monkeypatch):
    assert "Cases behind h200_sxm" in page
    monkeypatch.setattr(html_page, "MAX_BYTES", 10)
    less = html_page.render_page(told)
    assert "Cases behind h200_sxm" not in less
    assert "Its cases." not in less
    assert "--context 256 --format json</code>" in less
    assert not re.findall(r'href="#', less)
    assert not any("cases" in row for row in values(less, "plan-h200-sxm"))


def test_where_nothing_crosses_over_the_plot_is_left_out(tmp_path):
    fewer = [one for one in planted_parts.all_parts() if (one.case.op, one.case.ranks) != ("all_reduce", 8)]
    page = html_page.render_page(report.build_report([results.load(planted_parts.write(tmp_path / "a.json", fewer))]))
    assert "plan-crossovers" not in page
    assert 'data-for="plan-h200-sxm"' in page


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium to open the page in")
def test_a_click_on_a_dot_opens_its_cases(tmp_path, page):
    click = """<script>addEventListener("load", () => setTimeout(() => {
      const dot = [...document.querySelectorAll("#plan-h200-sxm .mark-symbol.role-mark path")].at(-1);
      const { x, y, width, height } = dot.getBoundingClientRect();
      const at = { bubbles: true, clientX: x + width / 2, clientY: y + height / 2, view: window };
      for (const kind of ["mousemove", "mousedown", "mouseup", "click"]) dot.dispatchEvent(new MouseEvent(kind, at));
      setTimeout(() => document.body.setAttribute("data-went", location.hash), 500);
    }, 3000))</script>"""
    path = tmp_path / "report.html"
    path.write_text(page.replace("</body>", f"{click}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--enable-logging=stderr"]
    arguments = [
        "chromium",
        *options,
        f"--user-data-dir={tmp_path}/profile",
        "--window-size=1280,900",
        "--dump-dom",
        path,
    ]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    (went,) = re.findall(r'<body data-went="#([^"]*)"', ran.stdout)
    assert went in {row.get("cases", "")[1:] for row in values(page, "plan-h200-sxm") if row.get("front")}
    assert re.search(r'<details id="h200-sxm-cases" open', ran.stdout)
    assert not [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
