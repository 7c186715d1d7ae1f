"""Typed models of the files in `pipelines/`, and functions that load them."""
