"""Imports what profilers saw of a run of the suites: device time a case and a layer's part, by their own clocks."""
