"""Bandwidth, latency and published references of operations between ranks."""
