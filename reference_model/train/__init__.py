"""Training: the loop and what it needs (clock, logs, checkpoints, validation, ranks)."""
