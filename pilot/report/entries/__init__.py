"""Entries for the leaderboard: one method's runs in one file, checked by whoever receives it."""
