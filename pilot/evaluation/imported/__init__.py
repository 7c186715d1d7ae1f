"""Answers of other tools: read, matched to the test sets, scored."""
