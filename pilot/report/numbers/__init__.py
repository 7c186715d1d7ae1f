"""Numbers of runs: loaded, summarised, tested."""
