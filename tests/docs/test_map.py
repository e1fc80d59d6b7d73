"""The map of the code: every arrow, file and name on it is true."""

import ast
import re
from pathlib import Path

import pytest

from tests.house.journeys import JOURNEYS, travel
from tests.test_architecture import MAY_IMPORT

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "map.md").read_text()
FLOORS, JOURNEY = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
STATIONS = re.findall(r'\["(\S+)<br>(\w+)"\]', JOURNEY)
LOOKED_FOR = re.findall(r"^\| .*\? \| `(\S+)` \| `(\w+)` \|$", PAGE, re.MULTILINE)


def test_the_arrows_between_floors_are_the_imports_that_are_allowed():
    drawn = re.findall(r"(\w+) --> (\w+)", FLOORS)
    assert sorted(drawn) == sorted((upper, lower) for upper, floors in MAY_IMPORT.items() for lower in floors)


def test_every_folder_is_on_the_map_in_its_own_words():
    rows = dict(re.findall(r"^\| `(\S+)/` \| (.*) \|$", PAGE, re.MULTILINE))
    packages = [path.parent for floor in MAY_IMPORT for path in (ROOT / floor).rglob("__init__.py")]
    own = {
        str(one.relative_to(ROOT)): ast.get_docstring(ast.parse((one / "__init__.py").read_text())) for one in packages
    }
    assert rows == own


@pytest.mark.parametrize(("path", "name"), [*STATIONS, *LOOKED_FOR])
def test_every_file_on_the_map_defines_what_it_is_named_for(path, name):
    body = ast.parse((ROOT / path).read_text()).body
    assert name in {one.name for one in body if isinstance(one, ast.FunctionDef | ast.ClassDef)}


def test_a_linear_passes_through_every_station_of_the_journey():
    assert len(STATIONS) > 10
    assert {path for path, _ in STATIONS} <= travel(JOURNEYS[0], ROOT).called
