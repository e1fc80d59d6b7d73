"""The libraries that carry messages, one file each: what each needs, and how it starts."""
