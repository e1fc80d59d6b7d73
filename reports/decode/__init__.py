"""Decode kernels: ours beside the vendor's library at every sharded linear."""
