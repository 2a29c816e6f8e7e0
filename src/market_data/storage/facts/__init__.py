"""What is not a candle: facts appended version by version, and what sources list."""
