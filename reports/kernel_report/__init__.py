"""The kernels of decode beside the library and the floor, with targets."""
