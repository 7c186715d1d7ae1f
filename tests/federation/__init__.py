"""Tests of `pilot.federation`."""
