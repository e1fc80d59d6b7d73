"""Seeded mutants of the product: chosen on one tree, run on another after a refactoring.

A mutant is one changed expression. The shape of its function finds it again, also after moves and renamings. It is
caught if a test that runs its line fails with it and passes without it.

    python -m pip install pytest-cov
    python -m pytest tests --cov --cov-branch --cov-context=test
    python -m tests.house.mutants list --tree . --seed 19 --count 50 -o mutants.json
    python -m tests.house.mutants run mutants.json --tree . -o caught.json --against earlier.json
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

from tests.house.shapes import find, functions, mutated, record, tracked

FLOORS = ("specs", "kernels", "comm", "suites", "reports")
SLOW = "suites/gate/"
LEAST_STATEMENTS = 4
FIRST_TESTS, MOST_FILES, MORE_TESTS = 25, 5, 50
"""Tests of a mutant; if it survives these, whole test files, and then further tests."""
LIMIT_SECONDS = "120"


class Tests:
    """Tests by the line that they run, from coverage data with test contexts."""

    def __init__(self, path):
        from coverage import CoverageData

        if not path.is_file():
            raise SystemExit(f"{path}: no coverage data; `pydoc tests.house.mutants` says how to record it")
        data = CoverageData(str(path))
        data.read()
        self.root = os.path.commonpath(data.measured_files())
        self.lines = cache(lambda path: data.contexts_by_lineno(os.path.join(self.root, path)))  # noqa: PTH118
        self.files = {test.split("::")[0] for test in _names(data.measured_contexts())}

    def contexts(self, path, site):
        """Name the tests that run an expression, or else those that begin its statement."""
        for lines in (range(site.node.lineno, site.node.end_lineno + 1), [site.statement.lineno]):
            found = {context for line in lines for context in self.lines(path).get(line, ())}
            if _names(found):
                return found
        return set()

    def rounds(self, path, site):
        """List what to run until a test catches the mutant: a few of these tests, whole files, more tests.

        A line may also run in another process, or while pytest collects: no test is recorded for it then.
        So the files with the most similar paths are chosen.
        """
        contexts = self.contexts(path, site)
        running = _names(contexts)
        first = _spread(running, FIRST_TESTS)
        hidden = "" in contexts or len(running) < FIRST_TESTS
        files = self.files if hidden else {test.split("::")[0] for test in running}
        nearest = sorted(files, key=lambda file: (-len(_words(file) & _words(path)), len(_words(file)), file))
        return [first, *([file] for file in nearest[:MOST_FILES]), _spread(running - set(first), MORE_TESTS)]


def _words(path):
    return set(re.findall("[a-z]+", path)) - {"test", "tests", "py"}


def _names(contexts):
    """Return the tests in contexts such as `tests/test_a.py::test_b|run`."""
    return {context.rpartition("|")[0] for context in contexts if "|" in context}


def _spread(tests, most):
    """Choose tests evenly: one case of each test function, then a second one."""
    groups, chosen = defaultdict(list), []
    for test in sorted(tests):
        groups[test.split("[")[0]].append(test)
    for turn in range(max(map(len, groups.values()), default=0)):
        level = [group[turn] for group in groups.values() if turn < len(group)]
        room = min(most - len(chosen), len(level))
        chosen += [level[index * len(level) // room] for index in range(room)]
    return sorted(chosen)


def choose(tree, tests, seed, count):
    """Yield mutants of many kinds, on each floor in proportion to its statements."""
    known, draw, used = functions(tree), random.Random(seed), Counter()
    copies = Counter(str(function.shape) for function in known)
    floors = [[function for function in known if function.path.startswith(f"{floor}/")] for floor in FLOORS]
    sizes = [sum(len(function.shape) for function in floor) for floor in floors]
    for number, floor in enumerate(floors):
        left = round(count * sum(sizes[: number + 1]) / sum(sizes)) - used.total()
        for function in draw.sample(floor, len(floor)):
            statements = sum(not line.endswith(":") for line in function.shape)
            small = statements < LEAST_STATEMENTS or copies[str(function.shape)] > 1
            if left <= 0 or small or function.path.startswith(SLOW):
                continue
            sites = [site for site in function.sites if tests.contexts(function.path, site)]
            least = min((used[site.key[0]] for site in sites), default=0)
            if sites := [site for site in sites if used[site.key[0]] == least]:
                site = draw.choice(sites)
                used[site.key[0]] += 1
                left -= 1
                yield record(function, site)


class Copy:
    """Temporary copy of a tree."""

    def __init__(self, tree, folder):
        self.folder = folder
        for name in tracked(tree):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / name, folder / name)
        self._git("init", "--quiet")
        self._git("add", "--all", "--force")

    def _git(self, *words):
        subprocess.run(["git", *words], cwd=self.folder, check=True)

    def catches(self, path, text, tests):
        """Tell if one of the tests fails with the mutated file and passes without it."""
        while tests:
            (self.folder / path).write_text(text, "utf-8")
            failing = self._failing(tests)
            if not failing:
                return False
            broken = self._failing(failing)
            if not broken:
                return True
            tests = [test for test in tests if test not in broken] or tests[1::2]
        return False

    def _failing(self, tests):
        """Name the tests that fail, or all where pytest did not begin or end in time; then restore the tree."""
        options = ["-x", "-q", "--color=no", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        command = ["timeout", "-s", "KILL", LIMIT_SECONDS, sys.executable, "-m", "pytest", *options, *tests]
        try:
            with tempfile.TemporaryFile("w+") as output:  # a pipe would wait for whatever a test left running
                done = subprocess.run(command, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, check=False)
                output.seek(0)
                lines = re.findall(r"^(?:FAILED|ERROR) (.*)", output.read(), re.MULTILINE)
        finally:
            self._git("checkout", "--quiet", "--", ".")
            self._git("clean", "-fdxq", "-e", "__pycache__")
        named = [test for test in tests if any(f"{line} - ".startswith(f"{test} - ") for line in lines)]
        return (named or tests) if done.returncode else []


def run(mutants, tree, tests):
    """Yield the outcome of each mutant: caught, survived or not found."""
    known = functions(tree)
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(tree, Path(folder))
        for mutant in mutants:
            outcome = {"name": mutant["name"], "outcome": "not found"}
            if place := find(mutant, known):
                function, site, ratio = place
                rounds = tests.rounds(function.path, site)
                text = mutated((tree / function.path).read_text("utf-8"), site)
                turns = (turn for turn, chosen in enumerate(rounds, 1) if copy.catches(function.path, text, chosen))
                caught = next(turns, 0)
                outcome |= {"outcome": "caught" if caught else "survived", "round": caught, "tests": len(rounds[0])}
                outcome |= {"place": f"{function.path}:{site.node.lineno} {function.name}", "alike": round(ratio, 3)}
            yield outcome


def main():
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description="Mutants of the product, and which of them the tests catch.")
    commands = parser.add_subparsers(dest="command", required=True)
    lists, runs = commands.add_parser("list"), commands.add_parser("run")
    lists.add_argument("--seed", type=int, default=19)
    lists.add_argument("--count", type=int, default=50)
    runs.add_argument("mutants", type=Path)
    runs.add_argument("--against", type=Path, help="earlier outcomes; exit 1 if a mutant caught there survives now")
    for command in (lists, runs):
        command.add_argument("--tree", type=Path, required=True)
        command.add_argument("--coverage", type=Path, help="coverage data with test contexts (default: TREE/.coverage)")
        command.add_argument("-o", dest="output", type=Path, required=True)
    asked = parser.parse_args()
    tests = Tests(asked.coverage or asked.tree / ".coverage")
    if asked.command == "list":
        asked.output.write_text(json.dumps(list(choose(asked.tree, tests, asked.seed, asked.count)), indent=1) + "\n")
        return 0
    outcomes = {}
    for outcome in run(json.loads(asked.mutants.read_text()), asked.tree, tests):
        outcomes[outcome["name"]] = outcome
        changed = f"; in a function that changed: {outcome['place']}" if outcome.get("alike", 1) < 1 else ""
        _say(f"{outcome['outcome']:<10} {outcome['name']}{changed}")
        asked.output.write_text(json.dumps(outcomes, indent=1) + "\n")
    _say(", ".join(f"{count} {name}" for name, count in Counter(one["outcome"] for one in outcomes.values()).items()))
    lost = 0
    for name, before in (json.loads(asked.against.read_text()) if asked.against else {}).items():
        now = outcomes.get(name, {"outcome": "not run"})["outcome"]
        lost += (before["outcome"], now) == ("caught", "survived")
        if now != before["outcome"]:
            _say(f"{before['outcome']} before, {now} now: {name}")
    return int(lost > 0)


def _say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
