"""Runs on several machines: keys, nodes, and a complete deployment on a single machine."""
