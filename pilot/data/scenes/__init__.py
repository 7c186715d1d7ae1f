"""Synthetic scenes: objects, their relations, and sentences about them."""
