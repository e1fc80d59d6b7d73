"""Importers of result files from what other programs measured."""
