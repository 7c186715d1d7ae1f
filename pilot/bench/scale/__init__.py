"""`pilot-bench bench federation`: what the server costs as clients become many. Synthetic clients, no training."""
