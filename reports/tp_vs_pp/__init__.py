"""Measured steps of whole models under TP and PP, and how well parts predict them."""
