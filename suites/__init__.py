"""pytest-benchmark suites, one question a file, and the machinery that makes their numbers."""
