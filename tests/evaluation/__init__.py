"""Tests of `pilot.evaluation`."""
