"""Answers of other tools, matched to the test sets and scored here."""
