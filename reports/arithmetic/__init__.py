"""The note's arithmetic, claim by claim: what its figures should be, from the specs alone."""
