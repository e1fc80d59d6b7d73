"""Whole models measured under several deployments, and how well their parts predict them."""
