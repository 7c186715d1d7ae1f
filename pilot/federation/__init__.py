"""Rounds, clients, transports, and what guards and accounts for them."""
