"""Which configuration a kernel runs with: a rule, a static model, a table by shape, and the search that fills it."""
