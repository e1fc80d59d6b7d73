"""Plots of a page as Vega-Lite specifications."""

import json
import re

import altair as alt
import pytest
from altair.utils.schemapi import SchemaBase


def checked_plots(page):
    """Names of the plots, each found right by Altair's schema: pages are written without that check."""
    found = re.findall(r'data-for="([^"]*)">(.*?)</script>', page, re.S)
    for _, spec in found:
        alt.Chart.from_dict(json.loads(spec), validate=True)
    return [name for name, _ in found]


def channels_made_of_strings(draw):
    """Strings that Altair makes channels of while `draw` runs, which takes it 7 ms each."""
    made, from_dict = [], SchemaBase.from_dict.__func__

    def noted(cls, given, *options, **named):
        made.append(given)
        return from_dict(cls, given, *options, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SchemaBase, "from_dict", classmethod(noted))
        draw()
    return [given["shorthand"] for given in made if "shorthand" in given]
