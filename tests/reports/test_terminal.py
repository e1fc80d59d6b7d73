"""Text for a terminal: rows as rich draws them, at little cost, and cut nowhere."""

import cProfile
import pstats
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table as Grid
from rich.text import Text

from reports.output import Column, Facts, Table, render_terminal

WORDS = ("a", "longer", "1,234", "–", "µs", "x" * 20, " ", "two  spaces", "one\ntwo")
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def drawn_by_rich(table, *, width, color):
    """The same table when rich draws all its rows."""
    grid = Grid(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for i, column in enumerate(table.columns):
        cells = [column.title, *(row[i] for row in table.rows)]
        parts = [part for cell in cells for part in (cell.split() if column.prose else cell.split("\n")) or [""]]
        grid.add_column(
            Text(column.title),
            justify="right" if column.number else "left",
            no_wrap=not column.prose,
            overflow="fold",
            min_width=max(map(len, parts)),
        )
    for group in table.groups:
        for row in group:
            grid.add_row(*map(Text, row))
        grid.add_section()
    title = Text.assemble((table.title, "bold"), ("  " + table.caption if table.caption else "", "dim"))
    console = Console(file=StringIO(), width=width, force_terminal=color, color_system="auto" if color else None)
    whole = Group(title, grid, *(Text(note, style="dim") for note in table.notes))
    console.width = max(width, console.measure(whole, options=console.options.update(width=10_000)).minimum)
    with console.capture() as capture:
        console.print(whole)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


@st.composite
def tables(draw):
    """Tables whose last column may be prose: rich cuts tables that have more prose."""
    numbers = draw(st.lists(st.booleans(), min_size=1, max_size=5))
    prose = draw(st.booleans())
    last = len(numbers) - 1
    columns = [Column(f"c{i}\nunit", number=one, prose=prose and i == last) for i, one in enumerate(numbers)]
    rows = st.tuples(*(TEXTS for _ in columns))
    return Table(
        title="title",
        columns=tuple(columns),
        groups=tuple(map(tuple, draw(st.lists(st.lists(rows, max_size=3), max_size=3)))),
        caption=draw(TEXTS),
        notes=tuple(draw(st.lists(TEXTS, max_size=2))),
    )


@given(table=tables(), width=st.integers(20, 160), color=st.booleans())
def test_a_table_reads_as_rich_draws_it(table, width, color):
    assert render_terminal([table], width=width, color=color) == drawn_by_rich(table, width=width, color=color)


def test_a_row_of_a_long_table_costs_few_calls():
    columns = (*(Column(f"c{i}") for i in range(9)), Column("notes", number=False, prose=True))
    rows = tuple((*(f"{i * j}" for j in range(9)), "single pass") for i in range(1000))
    with cProfile.Profile() as profile:
        render_terminal([Table(title="long", columns=columns, groups=(rows,))], width=120)
    assert pstats.Stats(profile).total_calls < 40 * 10 * len(rows), "rich alone makes 600 calls a cell"


def test_columns_of_prose_are_narrowed_to_their_longest_words_and_none_is_cut():
    words = "many short words and one of twenty letters:", "x" * 20
    columns = tuple(Column(name, number=False, prose=True) for name in ("splits", "why"))
    row = (" ".join([*words, *words]), " ".join(["y" * 30] * 4))
    text = render_terminal([Table(title="left out", columns=columns, groups=((row,),))], width=54)
    assert max(map(len, text.splitlines())) == 54
    assert text.count("x" * 20) == 2
    assert text.count("y" * 30) == 4


def test_wide_letters_count_two_columns():
    columns = Column("name", number=False), Column("count")
    table = Table(title="wide", columns=columns, groups=((("漢字", "1"), ("abcde", "10")),))
    assert render_terminal([table], width=80).splitlines()[-2:] == ["漢字       1", "abcde     10"]


@pytest.mark.parametrize("block", [Facts(title="f", rows=(("name", "a\x1b[31mb"),)), None], ids=["facts", "table"])
def test_control_characters_are_shown(block):
    table = Table(title="t", columns=(Column("name", number=False),), groups=((("a\x1b[31mb",),),))
    assert "a\N{REPLACEMENT CHARACTER}[31mb" in render_terminal([block or table], width=80)
