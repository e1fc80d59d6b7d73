"""The planner's steps and crossovers against a recomputation that shares no code with it."""

import json
from importlib import util

import pytest

from tests.reports.plan import independent_planner
from tests.reports.run_reports import run_reports

if util.find_spec("aiconfigurator_core") is None:
    pytest.skip("aiconfigurator-core is not installed (extra `silicon`)", allow_module_level=True)

SYSTEMS = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "rtx_pro_6000_server", "l40s")
BATCHES = (1, 64, 256, 1024)
DEPLOYMENT_FIELDS = ("tp", "pp", "replicas", "schedule", "micro_batches", "partition")
DEPLOYMENTS = {
    "tp8": (8, 1, 1, "tp", 1, "even"),
    "pp8-sync": (1, 8, 1, "sync", 1, "even"),
    "pp8-async8": (1, 8, 1, "async", 8, "even"),
    "tp2x4": (2, 1, 4, "tp", 1, "even"),
}
BATCH_STEP = 8
"""Sequences between two batches that a crossover is looked for at."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_steps_and_crossover_are_those_of_the_independent_planner(system, tmp_path, capsys):
    path = tmp_path / f"{system}.json"
    assert run_reports("import", "aiconfigurator", "--system", system, "-o", path) == 0
    capsys.readouterr()
    asked = ["--model", "llama-3-70b", "--gpus", 8, "--context", 256, "--batch", ",".join(map(str, BATCHES))]
    assert run_reports("plan", path, *asked, "--format", "json") == 0
    plan = json.loads(capsys.readouterr().out)

    planned = {
        (point["batch"], *(point[name] for name in DEPLOYMENT_FIELDS)): point.get("step_seconds")
        for point in plan["points"]
    }
    for batch in BATCHES:
        for name, seconds in independent_planner.steps(path, batch).items():
            found = planned.get((batch, *DEPLOYMENTS[name]))
            assert found == (seconds and pytest.approx(seconds, rel=1e-3)), (batch, name)

    for name, batch in independent_planner.crossover(path).items():
        found = plan["crossover"][name]
        assert found == (batch and pytest.approx(batch, abs=BATCH_STEP)), name
