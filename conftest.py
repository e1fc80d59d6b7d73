"""Registers pytest plugins at the root: the suites', so that its options exist however pytest is called."""

pytest_plugins = ["suites.plugin", "pytester"]  # pytester runs pytest inside tests; pytest takes it from here only
