"""Compare methods and baselines on the same people."""
