"""Facts and arithmetic without torch: models, GPUs, splits, the roofline, the measurement record."""
