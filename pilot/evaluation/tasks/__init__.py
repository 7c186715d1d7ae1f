"""lm-eval task files (YAML) and the functions they call."""
