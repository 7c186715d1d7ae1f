"""The method protocol, and Pilot."""
