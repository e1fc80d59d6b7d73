"""Worker processes, one per rank: launch, messages, health, timing."""
