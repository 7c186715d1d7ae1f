"""Rounds of this suite beside those of other federated simulators: the same task, in each one's own environment."""
