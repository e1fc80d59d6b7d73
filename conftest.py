"""Registers the suites' pytest plugin at the root, so that its options exist for every way pytest is called."""

pytest_plugins = ["suites.plugin"]
