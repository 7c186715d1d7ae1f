"""Flower: apps, server, transport and messages; simulation on Ray."""
