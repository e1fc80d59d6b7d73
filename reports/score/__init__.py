"""The planner scored against served runs: prediction, fit of constants, tables."""
