"""A whole decoder layer of one rank, put together from the kernels of its parts."""
