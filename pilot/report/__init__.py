"""Tables, statistics and figures: reads `results/`, never recomputes what a run already says."""
