"""Tests of `pilot.backbone`."""
