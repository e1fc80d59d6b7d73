"""The rules of the house: who may import whom, how long a file is, and names that mean one thing on a floor."""

import ast
from pathlib import Path

import pytest

from tests.house.figures import House, circles, largest_file, long_lines, shared_class_names

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

APART = {
    "a verb of the command line": (
        *("kernels.inspection.report", "kernels.tuning.tune", "reports.archive.index", "reports.compare.command"),
        *("reports.html.command", "reports.importers.nccl_tests", "reports.score.report"),
        *("reports.importers.profiler.report", "reports.kernel_report.report", "suites.doctor", "suites.overhead"),
    ),
    "a kernel, or a library that carries messages": (
        *("comm.one_shot", "comm.backends.cupy_nccl", "comm.backends.mpi", "comm.backends.symmetric"),
        "kernels.cublaslt",
    ),
    "a section of the page": (
        *("reports.html.communication", "reports.html.linears", "reports.html.plans", "reports.html.steps"),
        "reports.html.page",
    ),
    "a step of the gate, or a program that one starts": (
        *("suites.gate.clock", "suites.gate.correctness", "suites.gate.ranks", "suites.gate.sanitizer"),
        *("suites.gate.suite", "suites.gate.warm", "suites.gate.overlapping", "suites.gate.watched_calls"),
        *("suites.gate.launches", "suites.gate.runner"),
    ),
    "a format that another program writes": (
        *("kernels.inspection.sass", "reports.importers.nccl_tests_output", "reports.importers.profiler.nsys"),
        *("reports.importers.aiconfigurator.tables", "specs.model_config"),
    ),
    "a subject of its own, and with its neighbour over the limit or a circle": (
        *("comm.point_to_point", "kernels.tuning.search", "reports.claims.bandwidth", "reports.claims.planned_steps"),
        *("reports.importers.profiler.times", "reports.kernel_report.points", "reports.tp_vs_pp.validation"),
        *("suites.bench_linears", "suites.decoder.pipeline", "suites.decoder.worker", "suites.probes.ledger"),
        *("reports.plan.cost", "reports.score.fit", "suites.clock", "suites.runner", "suites.session"),
        *("suites.workers.in_step", "suites.workers.remote"),
    ),
}
"""Modules that a single module imports, by the reason for which they stand apart."""


def imported_packages(module):
    """(line, top-level package) of every import, also those inside functions."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: relative import; name the floor"
            yield node.lineno, node.module.split(".")[0]


def breaches(house):
    for module in house.modules:
        floor = module.path.parts[0]
        forbidden = (set(MAY_IMPORT) - MAY_IMPORT[floor] - {floor}) | NEVER.get(floor, set())
        for line, package in imported_packages(module):
            if package in forbidden:
                allowed = ", ".join(sorted(MAY_IMPORT[floor])) or "no other floor"
                yield f"{module.path}:{line}: imports {package}; {floor} may import {allowed}"


@pytest.fixture(scope="module")
def house():
    return House(ROOT)


@pytest.fixture
def planted(tmp_path):
    """A house of the given files."""

    def planted(files):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        return House(tmp_path)

    return planted


def test_modules_import_only_from_lower_floors(house):
    assert not list(breaches(house))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("specs/a.py", "import torch"),
        ("kernels/a.py", "from suites.collect import CaseState"),
        ("reports/a.py", "def f():\n    import suites.collect"),
        ("suites/a.py", "from reports import show"),
    ],
)
def test_a_breach_is_found(planted, path, text):
    (found,) = breaches(planted({path: text}))
    assert found.startswith(f"{path}:{text.count(chr(10)) + 1}: imports ")


def test_no_file_is_too_long(house):
    assert largest_file(house)[0] <= MOST_LINES, largest_file(house)


def test_no_line_is_too_long_whatever_a_pragma_excuses(house):
    assert long_lines(house) == 0


def test_modules_import_each_other_in_no_circle(house):
    assert circles(house) == []


@pytest.mark.parametrize(
    "text",
    ["from specs.b import f", "import specs.b", "def f():\n    from specs import b"],
    ids=["from", "import", "late"],
)
def test_a_circle_is_found(planted, text):
    house = planted({"specs/a.py": text, "specs/b.py": "from specs.c import g", "specs/c.py": "from specs import a"})
    assert circles(house) == [["specs.a", "specs.b", "specs.c"]]


def test_no_two_classes_of_a_floor_share_a_name(house):
    assert shared_class_names(house) == {}


def test_a_shared_class_name_is_found(planted):
    house = planted({"specs/a.py": "class Row: ...", "specs/b.py": "class Row: ...", "comm/c.py": "class Row: ..."})
    assert shared_class_names(house) == {("specs", "Row"): ["specs.a", "specs.b"]}


def test_a_module_of_a_single_neighbour_has_a_reason_to_stand_apart(house):
    listed = [name for names in APART.values() for name in names]
    assert sorted(listed) == sorted(house.only_importers)


def test_a_module_of_a_single_neighbour_is_found(planted):
    house = planted({"specs/a.py": "", "specs/b.py": "from specs import a", "specs/c.py": "import specs.b, specs.a"})
    assert house.only_importers == {"specs.b": "specs.c"}
