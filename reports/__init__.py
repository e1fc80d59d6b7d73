"""Readers of result files, and answers to questions about them. No torch here."""
