"""All steps, in their order: what matters most comes first, the tuner takes what is left."""

from suites.gate import arrival, clock, correctness, dram, layers, memcheck, racecheck, ranks, suite, table, tune
from suites.gate.step import Step

STEPS: tuple[Step, ...] = (
    correctness.STEP,
    arrival.STEP,
    ranks.STEP,
    suite.STEP,
    layers.STEP,
    dram.STEP,
    clock.STEP,
    memcheck.STEP,
    racecheck.STEP,
    tune.STEP,
    table.STEP,
)
