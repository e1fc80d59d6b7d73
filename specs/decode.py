"""The points that decode kernels are held to: a layer's linears of one model, cut several ways, at five batches."""

MODEL = "llama-3-70b"
LAYERS = ("qkv", "o", "gate_up", "down")
TP = (1, 2, 4, 8)
TOKENS = (1, 8, 16, 32, 64)

IMPLEMENTATIONS = ("torch", "cublaslt", "triton", "triton-pdl", "cuda")
"""What a linear can be asked for as, in the order in which rivals are measured."""

CUBLASLT_CANDIDATES = 32
"""Proposals that cuBLASLt's heuristics are asked for at a size: a ratio against the fastest of fewer claims less."""
