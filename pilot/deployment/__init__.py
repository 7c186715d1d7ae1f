"""Runs on several machines, or as on several machines: keys, nodes, and a whole deployment on this one."""
