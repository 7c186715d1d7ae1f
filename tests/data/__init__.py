"""Tests of `pilot.data`."""
