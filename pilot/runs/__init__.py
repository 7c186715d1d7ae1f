"""Training and tuning runs, by name."""
