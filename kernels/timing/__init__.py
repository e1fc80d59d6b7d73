"""How long one call takes on the device: cold inputs, clocks, and what the device said meanwhile."""
