"""The interface of methods, their shared building blocks, and Pilot."""
