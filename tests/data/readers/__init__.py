"""Tests of the readers of files, on small files in the official formats."""
