"""What ranks say to each other: one file a collective, and the libraries that carry it."""
