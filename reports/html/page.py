"""Assemble the page: one HTML file with its styles, scripts and data."""

import base64
import gzip
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import vl_convert
from altair.utils.schemapi import debug_mode
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from reports.claims.verdict import VERDICTS
from reports.compare import generations
from reports.html import communication, linears, plans, steps
from reports.html.charts import Figure
from reports.html.report import TOKENS_QUESTION as TOKENS
from reports.html.report import TP_VS_PP_QUESTION, Report
from reports.output import Facts, Table
from reports.text_cache import fetch_cached

HERE = Path(__file__).parent
MAX_BYTES = 2_000_000
MAX_TIME_PLOTS = 8
"""Number of time plots that stay where all would make the page too large."""


def render_page(report: Report) -> str:
    """Render the page as HTML; text from files is escaped.

    A page that would be too large leaves out content and says so. The order: tables of single linears, tables of every
    message, cases behind plans, and plots of time beyond `MAX_TIME_PLOTS`.
    """
    with debug_mode(False):  # else Altair checks each part of each plot, which takes as long as drawing it
        return _render_largest(report)


def _render_largest(report: Report) -> str:
    """Render the page with as much content as fits."""
    template, parts = _template(), _parts(report)
    linears, times = _linears(report), _times(report)
    every = communication.every_size_tables(report.communication)
    traced = {"plans": plans.template_context(report.plans), "cases": plans.traced_cases(report.plans)}
    ladder: list[dict[str, Any]] = [
        {"linears": linears, "every_size": every, "times": times, **traced},
        {"linears": [], "every_size": every, "times": times, **traced},
        {"linears": [], "every_size": {}, "times": times, **traced},
    ]
    for large in ladder:
        if _fits(page := template.render(**parts, **large)):
            return page
    bare: dict[str, Any] = {
        "linears": [],
        "every_size": {},
        "plans": plans.template_context(report.plans, linked=False),
        "cases": {},
    }
    whole = template.render(**parts, **bare, times=times)
    return whole if _fits(whole) else template.render(**parts, **bare, times=times[:MAX_TIME_PLOTS])


def _fits(page: str) -> bool:
    return len(page.encode()) < MAX_BYTES


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.filters["csv_link"] = _csv_link
    environment.filters["code"] = _code
    return environment.get_template("page.html.j2")


def _parts(report: Report) -> dict[str, Any]:
    """Content of every page, whatever its size."""
    gpus = list(dict.fromkeys(one.name for one in report.evidences))
    return {
        "question": TP_VS_PP_QUESTION,
        "answer": report.answer,
        "tokens_question": TOKENS,
        "tokens": report.tokens,
        "missing": report.missing,
        "verdicts": report.verdicts(),
        "summary": report.summary(),
        "roofline": linears.roofline_figure(report.evidences, gpus),
        "speedup": linears.speedup_figure(report.generations, gpus) if report.generations else None,
        "generations": generations.linear_table(report.generations) if report.generations else None,
        "by_question": generations.question_blocks(report.generations) if report.generations else [],
        "experiment": steps.template_context(report.experiment),
        "layers": linears.template_context(report.layers),
        "communication": communication.template_context(report.communication),
        "provenance": _by_file(report),
        "verdict_words": VERDICTS,
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        "embed": Markup((HERE / "embed.js").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        "vega": _vega(),
    }


def _linears(report: Report) -> list[Table]:
    """Findings on single linears, a table for each claim on times."""
    tables = [block for block in report.verdicts(every=True) if isinstance(block, Table)]
    return [table for table in tables if table.title != "arithmetic"]


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one compressed script.

    Uncompressed, the script would take half of the page's maximum size. Bundling it takes two seconds, and each version
    of vl-convert gives the same script: hence the cache.
    """
    text, _ = fetch_cached(f"vega {metadata.version('vl-convert-python')}", _bundle_vega)
    return text


def _bundle_vega() -> str:
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub asks for what it can do without
    return base64.b64encode(gzip.compress(bundle.encode(), mtime=0)).decode()


def _times(report: Report) -> list[Figure]:
    """A plot for each GPU and format of dense layers.

    Where the GPUs share a linear, the plots show it.
    """
    shared = (report.generations.model, report.generations.part) if report.generations else None
    dense = [one for one in report.evidences if one.architecture == "dense"]
    return [linears.tokens_figure(one, linears.choose_part(one, shared)) for one in dense]


def _by_file(report: Report) -> list[list[Facts]]:
    """Blocks of each file: a heading of level 2 starts a file."""
    groups: list[list[Facts]] = []
    for block in report.provenance():
        if isinstance(block, Facts):
            if block.level == 2:
                groups.append([])
            groups[-1].append(block)
    return groups


def _code(text: str) -> Markup:
    """Escape text, and mark text in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just now


def _csv_link(figure: Figure) -> str:
    encoded = base64.b64encode(figure.csv.encode()).decode()
    return f"data:text/csv;charset=utf-8;base64,{encoded}"
