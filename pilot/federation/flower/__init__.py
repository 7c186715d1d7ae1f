"""Flower: apps, server, transport and messages; simulation in Ray."""
