"""What a whole decoder layer spends its time on: its parts, its launches, and what comes of putting them together."""
