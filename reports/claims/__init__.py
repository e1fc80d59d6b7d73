"""Claims and their verdicts: by arithmetic, by measurement, by a plan."""
