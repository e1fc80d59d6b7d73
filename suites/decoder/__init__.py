"""A whole decoder on ranks: its weights, one rank's stage of it, and the pipeline that runs it step by step."""
