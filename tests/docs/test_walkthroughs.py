"""The walk-throughs of docs/ are done, step by step, in a copy of the tree."""

from pathlib import Path

import pytest

from tests.docs.steps import steps
from tests.docs.tree import ROOT, copy, do

PAGES = sorted((ROOT / "docs").glob("add-a-*.md"))


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_every_step_does_what_the_page_says(page: Path, tmp_path: Path):
    tree = copy(tmp_path / "tree")
    for step in steps(page):
        do(step, tree, page.name)
