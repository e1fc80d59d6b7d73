"""All steps by profile, in their order: what later ones rest on comes first."""

from suites.gate import (
    arrival,
    clock,
    correctness,
    counters,
    dram,
    facts,
    implementations,
    layers,
    memcheck,
    planted,
    racecheck,
    ranks,
    suite,
    table,
    warm,
)
from suites.gate.step import Profile

SMOKE = Profile(
    "smoke",
    "does anything run here at all: versions, one case of each implementation, one call under each tool",
    100.0,
    (facts.STEP, implementations.STEP, counters.STEP, planted.STEP),
)
EVIDENCE = Profile(
    "evidence",
    "what a result file rests on, and the figures themselves",
    400.0,
    (
        warm.STEP,
        correctness.STEP,
        suite.STEP,
        layers.STEP,
        dram.STEP,
        clock.STEP,
        arrival.STEP,
        table.STEP,
    ),
)
SAFETY = Profile(
    "safety",
    "ranks that share the GPU, and compute-sanitizer over our kernels and planted faults",
    380.0,
    (ranks.STEP, memcheck.STEP, racecheck.STEP),
)
PROFILES = {profile.name: profile for profile in (SMOKE, EVIDENCE, SAFETY)}
