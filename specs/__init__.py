"""Facts and arithmetic: models, GPUs, splits, the roofline and the record of a measurement. No torch here."""
