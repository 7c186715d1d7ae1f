"""`pilot-bench bench gpu`: the check of a GPU that is at hand for minutes."""
