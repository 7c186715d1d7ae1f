"""Loading, summarising and testing the numbers of runs."""
