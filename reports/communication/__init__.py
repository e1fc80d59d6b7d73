"""Operations between ranks in result files: bandwidths, the latency and bandwidth fitted to them, what is normal."""
