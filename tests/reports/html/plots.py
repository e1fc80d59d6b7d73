"""Plots of a page as Vega-Lite specifications."""

import json
import re

import altair as alt


def checked_plots(page):
    """Names of the plots, each found right by Altair's schema: pages are written without that check."""
    found = re.findall(r'data-for="([^"]*)">(.*?)</script>', page, re.S)
    for _, spec in found:
        alt.Chart.from_dict(json.loads(spec), validate=True)
    return [name for name, _ in found]
