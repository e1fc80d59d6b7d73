"""What the compiler made of each kernel, and what that promises: no GPU needed."""
