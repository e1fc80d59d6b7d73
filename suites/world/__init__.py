"""Ranks: who starts them, who watches them, and how a case is run on all of them at once."""
