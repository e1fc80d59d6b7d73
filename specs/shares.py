"""What a rank computes of a model by itself, its share, as cases name it: timed alone, and beside other ranks."""

from specs.layer import WHOLE

QUESTION = "shares"
LAYER, HEAD = WHOLE, "lm_head"
"""Its parts: one layer; and norm, LM head and the largest logit of each sequence."""
PARTS = (LAYER, HEAD)
