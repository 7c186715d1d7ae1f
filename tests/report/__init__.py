"""Tests of `pilot.report`."""
