"""Figures at many batches from few: the same as at each batch, for fewer of them worked out."""

import pytest

from reports.plan import crossover, planner
from reports.plan.estimate import MissingMeasurementError, StepBounds, evaluate_grid
from reports.results import load
from tests.reports.plan import planted_parts

GRID = list(range(8, 4097, 8))


def counted(figure):
    """A figure as bounds, and at which batches it was asked for."""
    asked = []

    def at(batch):
        asked.append(batch)
        return StepBounds(figure(batch), 0.5 * figure(batch), 2 * figure(batch))

    return at, asked


@pytest.mark.parametrize(
    ("figure", "bends"),
    [
        (lambda batch: 3.0 + 2 * batch, []),
        (lambda batch: 3.0 + 2 * max(0, batch - 129) + 5 * max(0, batch - 3000), [129, 3000]),
        (lambda batch: 1.0 + batch + 40.0 * (batch > 128), [128]),  # a tile cliff, tabulated on both sides
        (lambda batch: max(5000.0, 3.0 * batch), []),  # bends to one side where no table says so
        (lambda batch: min(3.0 * batch, 2000.0 + batch), []),
    ],
)
def test_every_batch_is_as_if_it_had_been_worked_out(figure, bends):
    at, asked = counted(figure)
    found = evaluate_grid(at, GRID, bends)
    assert [one.seconds for one in found] == pytest.approx([figure(batch) for batch in GRID], rel=1e-9)
    assert [one.high for one in found] == pytest.approx([2 * figure(batch) for batch in GRID], rel=1e-9)
    assert len(asked) < 40


def test_it_ends_where_a_part_was_not_measured():
    def at(batch):
        if batch > 1024:
            raise MissingMeasurementError("no more")
        return StepBounds(batch, batch, batch)

    assert [one.seconds for one in evaluate_grid(at, GRID, [1024])] == GRID[:128]
    assert evaluate_grid(at, [2000, 2008], []) == []
    assert evaluate_grid(at, [], []) == []


def test_crossovers_are_those_of_every_batch(tmp_path, monkeypatch):
    """Vllm beside another framework that is faster up to 1024 tokens and has other tables."""
    other = planted_parts.all_parts("trtllm", 0.8, 0.6)
    path = planted_parts.write(tmp_path / "x.json", [*planted_parts.all_parts(), *other])
    found = planner.crossover_for_file(load(path), planner.REPORT_QUERY)
    calls = []
    every = crossover.evaluate_grid
    monkeypatch.setattr(
        crossover, "evaluate_grid", lambda at, grid, bends: calls.append(bends) or every(at, grid, grid)
    )
    assert planner.crossover_for_file(load(path), planner.REPORT_QUERY) == found
    assert found.verdict == "crossover"
    assert calls
