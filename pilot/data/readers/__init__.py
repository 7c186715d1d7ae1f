"""Readers of files: one format each, from bytes to rows; `catalogue.READERS` lists them by source name."""
