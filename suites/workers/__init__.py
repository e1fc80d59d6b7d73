"""Worker processes: one per rank, started, told what to run, and watched."""
