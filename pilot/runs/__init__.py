"""Training and tuning of runs given by name."""
