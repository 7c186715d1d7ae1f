"""Tables, statistics and figures, read from `results/`; nothing that a run has recorded is recomputed."""
