"""Figures of the house: sizes, imports, names and docstrings of the product.

    python -m tests.house.figures [--tree PATH] [--base PATH] [--journeys]

Trees are parsed, never imported. A floor is one of the product's top folders.
"""

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from tests.house.journeys import JOURNEYS, ROOT, travel
from tests.house.tracer.sitecustomize import FLOORS

LONGEST_LINE = 120
VAGUE_STARTS = {"What", "Whether", "Whose", "Of", "So", "Nobody"}


class Module:
    """A parsed file of the product."""

    def __init__(self, path: Path, tree: Path) -> None:
        self.path = path.relative_to(tree)
        self.name = ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")
        self.text = path.read_text(encoding="utf-8")
        self.nodes = list(ast.walk(ast.parse(self.text, str(path))))

    def imports(self, names: set[str]) -> Iterator[str]:
        """Imported modules out of `names`; `from a import b` counts for `a.b` where that is a module."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in names)
            elif isinstance(node, ast.ImportFrom):
                longer = {f"{node.module}.{alias.name}" for alias in node.names}
                yield from longer & names
                if longer - names and node.module in names:
                    yield node.module


class House:
    """All files of the product in a tree, and the imports between them."""

    def __init__(self, tree: Path) -> None:
        paths = [path for floor in FLOORS for path in sorted((tree / floor).rglob("*.py"))]
        self.modules = [Module(path, tree) for path in paths]

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Modules that each module imports, also inside functions and for type checkers."""
        names = {module.name for module in self.modules}
        return {module.name: set(module.imports(names)) - {module.name} for module in self.modules}

    @cached_property
    def only_importers(self) -> dict[str, str]:
        """The importer of each module that has exactly one."""
        counts = Counter(name for imports in self.imports.values() for name in imports)
        return {name: by for by, imports in self.imports.items() for name in imports if counts[name] == 1}


def files(house: House) -> int:
    """Count Python files, `__init__.py` included."""
    return len(house.modules)


def largest_file(house: House) -> tuple[int, str]:
    """Find the longest file: its lines and its path."""
    return max((len(module.text.splitlines()), module.path.as_posix()) for module in house.modules)


def long_lines(house: House) -> int:
    """Count lines with more columns than the limit."""
    return sum(len(line) > LONGEST_LINE for module in house.modules for line in module.text.splitlines())


def docstring(node: ast.AST) -> str | None:
    """Return the text of a string that is a statement: a docstring, or the text below an attribute."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return None


def statements(house: House) -> int:
    """Count statements that are neither imports nor docstrings."""
    found = (node for module in house.modules for node in module.nodes if isinstance(node, ast.stmt))
    return sum(not isinstance(node, ast.Import | ast.ImportFrom) and docstring(node) is None for node in found)


def vague_docstrings(house: House) -> int:
    """Count docstrings, also those of attributes, whose first word is among `VAGUE_STARTS`."""
    texts = (docstring(node) or "" for module in house.modules for node in module.nodes)
    return sum(text.split()[0] in VAGUE_STARTS for text in texts if text.strip())


def reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    """Follow imports from a module; the module itself is in the result where they lead back."""
    found, waiting = set[str](), [start]
    while waiting:
        new = imports[waiting.pop()] - found
        found |= new
        waiting.extend(new)
    return found


def circles(house: House) -> list[list[str]]:
    """Find the groups of modules that reach each other by imports."""
    reached = {name: reachable(name, house.imports) for name in house.imports}
    circular = [name for name, found in reached.items() if name in found]
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in circular}
    return sorted(sorted(group) for group in groups)


def single_importers(house: House) -> int:
    """Count modules that exactly one module of the product imports."""
    return len(house.only_importers)


def shared_class_names(house: House) -> dict[tuple[str, str], list[str]]:
    """Find names that two or more classes of a floor have: the modules by floor and name."""
    found: dict[tuple[str, str], list[str]] = {}
    for module in house.modules:
        for node in module.nodes:
            if isinstance(node, ast.ClassDef):
                found.setdefault((module.path.parts[0], node.name), []).append(module.name)
    return {name: modules for name, modules in found.items() if len(modules) > 1}


FIGURES: tuple[tuple[str, Callable[[House], int]], ...] = (
    ("Python files", files),
    ("lines of the longest file", lambda house: largest_file(house)[0]),
    ("statements", statements),
    ("import circles", lambda house: len(circles(house))),
    ("modules with one importer", single_importers),
    ("class names shared on a floor", lambda house: len(shared_class_names(house))),
    ("docstrings starting What, Of, So and the like", vague_docstrings),
    (f"lines over {LONGEST_LINE} columns", long_lines),
)


def main() -> None:
    """Print a row for each figure and a column for each tree."""
    parser = argparse.ArgumentParser(description="Print the figures of the house.")
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout to measure; else this one")
    parser.add_argument("--base", type=Path, help="checkout to show in a first column")
    parser.add_argument("--journeys", action="store_true", help="count the files that four commands enter")
    asked = parser.parse_args()
    trees = ([("base", asked.base)] if asked.base else []) + [("tree", asked.tree)]
    journeys = JOURNEYS if asked.journeys else ()
    columns = [["", *(title for title, _ in FIGURES), *(f"files entered by {one.name}" for one in journeys)]]
    for head, tree in trees:
        house = House(tree)
        columns.append([head, *(str(figure(house)) for _, figure in FIGURES)])
        columns[-1] += [str(travel(journey, tree).count) for journey in journeys]
    widths = [max(map(len, cells)) for cells in columns]
    for row in zip(*columns, strict=True):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


if __name__ == "__main__":
    main()
