"""`compare`: what changed between result files, how sure that is, and what could explain it."""
