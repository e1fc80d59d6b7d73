"""The configurations that kernels run with: their space, cost models, tuned tables and dispatch."""
