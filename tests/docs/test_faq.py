"""The answers of docs/faq.md: each command runs, and prints what the answer goes by."""

import re
from importlib.util import find_spec

import pytest

from tests.docs.steps import Command, steps
from tests.docs.tree import ROOT, copy, do

PAGE = ROOT / "docs" / "faq.md"
COMMANDS = steps(PAGE)


@pytest.mark.skipif(find_spec("aiconfigurator_core") is None, reason="needs published tables: the extra `silicon`")
def test_every_command_prints_what_its_answer_goes_by(tmp_path):
    tree = copy(tmp_path / "tree")
    for step in COMMANDS:
        do(step, tree, PAGE.name)


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
