"""A whole model on all ranks, step by step: what is asked for, who runs it, and where the time of a step goes."""
