"""Claims on whole models of published GPUs, judged by plans: steps put together from parts that others measured."""
