"""Read result files and answer questions about them, without importing torch."""
