"""The answers of docs/faq.md: each command runs, and prints what the answer goes by."""

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.steps import Command, missing, steps
from tests.docs.tree import ROOT, copy, do

PAGE = ROOT / "docs" / "faq.md"
COMMANDS = steps(PAGE)
PUBLISHED = {one.command: one.shown for one in steps(Path(__file__).with_name("published_figures.md"))}
"""What commands print of published times, whose figures the page leaves out."""


@pytest.mark.skipif(find_spec("aiconfigurator_core") is None, reason="needs published tables: the extra `silicon`")
def test_every_command_prints_what_its_answer_goes_by(tmp_path):
    tree = copy(tmp_path / "tree")
    left = dict(PUBLISHED)
    for step in COMMANDS:
        if figures := left.pop(step.command, None):
            assert missing(step.shown, "\n".join(figures)) is None, step.command
        do(replace(step, shown=figures or step.shown), tree, PAGE.name)
    assert not left


def test_every_answer_has_a_command_and_stands_in_the_list():
    text = PAGE.read_text()
    asked = re.findall(r"^## (.*)$", text, re.MULTILINE)
    listed = re.findall(r"^- \[(.*)\]\(#(.*)\)$", text, re.MULTILINE)
    assert [(one, re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-")) for one in asked] == listed
    answers = text.split("\n## ")[1:]
    assert [answer.splitlines()[0] for answer in answers if "```console" not in answer] == []
    assert all(isinstance(step, Command) for step in COMMANDS)


def test_what_is_linked_is_there():
    for target in re.findall(r"\]\(([\w./-]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).is_file(), target
