"""A simulated H200 whose true times are known: the whole GPU path runs on it, on a machine without a GPU."""
