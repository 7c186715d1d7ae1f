"""Typed models of the files in `pipelines/`, and how they are read."""
