"""The suite's answers and scores compared with those of a stock lm-eval model."""
