"""Readers: one file format each, from files to `pilot.data.rows`."""
