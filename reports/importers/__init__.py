"""Importers that turn output of other programs into result files."""
