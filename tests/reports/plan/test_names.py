"""The command that makes a plan again asks for the same."""

from pathlib import Path

from reports import __main__ as program
from reports.plan.query import Interconnect, PlanQuery
from reports.plan.tables import reproduce_command

QUERY = PlanQuery(
    model="llama-3-8b",
    gpus=8,
    context=300,
    batches=(1, 40),
    backend="nccl",
    launches=("eager",),
    partition="balanced",
    draft_tokens=2,
    prefill_chunk=64,
    layers=16,
    latencies=(0.015, 0.5),
    interconnect=Interconnect(
        nodes=2, gpus_per_node=4, bytes_per_second=123456789.0, latency_seconds=1.5e-6, share=0.3
    ),
)


def test_every_option_goes_there_and_back(monkeypatch):
    asked = []
    monkeypatch.setattr("reports.plan.report.write_plan", lambda paths, question, *_: asked.append((paths, question)))
    words = reproduce_command([Path("a.json"), Path("b.json")], QUERY).split()
    assert words[:4] == ["python", "-m", "reports", "plan"]
    program.app(args=words[3:], standalone_mode=False)
    assert asked == [([Path("a.json"), Path("b.json")], QUERY)]


def test_what_is_usual_is_left_out():
    assert (
        reproduce_command([Path("a.json")], PlanQuery(model="llama-3-70b", gpus=8)) == "python -m reports plan a.json"
    )
