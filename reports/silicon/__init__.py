"""Published measurements of silicon, turned into the record that the suites write."""
