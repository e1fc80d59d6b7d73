"""The floors of the house: a module imports only from lower floors."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "specs": set(),
    "kernels": {"specs"},
    "comm": {"specs"},
    "suites": {"specs", "kernels", "comm"},
    "reports": {"specs"},
}
NEVER = {"specs": {"torch", "triton", "cupy"}, "reports": {"torch", "triton", "cupy"}}
MOST_LINES = 600


def imports(path):
    """(line, top-level package) of every import, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(), path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; name the floor"
            yield node.lineno, node.module.split(".")[0]


def breaches(root):
    for floor, lower in MAY_IMPORT.items():
        forbidden = (set(MAY_IMPORT) - lower - {floor}) | NEVER.get(floor, set())
        for path in sorted((root / floor).rglob("*.py")):
            for line, package in imports(path):
                if package in forbidden:
                    allowed = ", ".join(sorted(lower)) or "no other floor"
                    yield f"{path.relative_to(root)}:{line}: imports {package}; {floor} may import {allowed}"


def test_modules_import_only_from_lower_floors():
    assert not list(breaches(ROOT))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("specs/a.py", "import torch"),
        ("kernels/a.py", "from suites.plan import Entry"),
        ("reports/a.py", "def f():\n    import suites.plan"),
        ("suites/a.py", "from reports import show"),
    ],
)
def test_a_breach_is_found(tmp_path, path, text):
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_text(text)
    (found,) = breaches(tmp_path)
    assert found.startswith(f"{path}:{text.count(chr(10)) + 1}: imports ")


def test_files_stay_small():
    files = [path for floor in MAY_IMPORT for path in (ROOT / floor).rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert not {path: count for path, count in lines.items() if count > MOST_LINES}
