"""What the reader of pages makes of them, and that a page which is wrong is found out."""

import pytest

from tests.docs.steps import Command, Diff, File, missing, steps
from tests.docs.tree import StepError, do

PAGE = """# Add a word

In the list:

```diff
--- a/words.txt
+++ b/words.txt
@@ -2,3 +2,4 @@
 two
+three
 four
 five
```

`count.py` counts them:

```python
print(len(open("words.txt").read().split()), "words")
```

```console
$ python count.py
5 words
$ python count.py \\
> | tail -n 1
```

```
read only
```
"""


@pytest.fixture
def follow(tmp_path):
    """Do the steps of a page, changed in one place, in a tree of one file."""

    def follow(old="", new=""):
        assert old in PAGE
        page, tree = tmp_path / "page.md", tmp_path / "tree"
        page.write_text(PAGE.replace(old, new, 1) if old else PAGE)
        tree.mkdir()
        (tree / "words.txt").write_text("one\ntwo\nfour\nfive\n")
        for step in steps(page):
            do(step, tree, page.name)

    return follow


def test_a_page_becomes_its_steps_in_order(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    diff, file, first, second = steps(page)
    assert (type(diff), type(file), type(first)) == (Diff, File, Command)
    assert (diff.line, file.path, file.text.count("\n")) == (6, "count.py", 1)
    assert (first.line, first.command, first.shown) == (22, "python count.py", ("5 words",))
    assert (second.line, second.command, second.shown) == (24, "python count.py | tail -n 1", ())


def test_a_page_that_is_right_is_followed_to_its_end(follow):
    follow()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" two\n", " zwei\n", r"page.md:6: error: .*patch"),  # a diff of lines that are not there
        ("5 words", "6 words", r"page.md:22: not printed: 6 words"),
        ("count.py\n5", "conut.py\n5", r"page.md:22: exit 2"),
        ("`count.py` counts", "`words.txt` counts", r"page.md:18: words.txt is there already"),
        (PAGE[PAGE.index("```diff") : PAGE.index("`count.py`")], "", r"not printed: 5 words"),  # a step left out
    ],
    ids=["diff", "figure", "command", "file", "left out"],
)
def test_a_page_that_is_wrong_is_found_out(follow, old, new, message):
    with pytest.raises(StepError, match=message):
        follow(old, new)


def test_a_new_file_needs_its_name(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("So:\n\n```python\nx = 1\n```\n")
    with pytest.raises(ValueError, match=r"page.md:4: no line above names the file"):
        steps(page)


@pytest.mark.parametrize(
    ("shown", "absent"),
    [
        (("a 1", "b"), None),
        (("b", "a 1"), "a 1"),  # in another order
        (("a … 2",), None),
        (("a … 3",), "a … 3"),
        (("a  1",), None),  # the width of a column
        (("b", "b"), "b"),  # printed once
    ],
)
def test_lines_are_looked_for_in_their_order(shown, absent):
    assert missing(shown, "head\na   1  2\nb\n") == absent
