"""A whole decoder on ranks: weights, stages, pipeline, trace, reference."""
