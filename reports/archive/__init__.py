"""The result files of `reports/data/`: checked, summed up, indexed."""
