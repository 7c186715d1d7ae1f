"""The suite's answers and scores beside those of a stock lm-eval model."""
