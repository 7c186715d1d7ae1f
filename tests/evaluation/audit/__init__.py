"""Attacks on messages, on tiny tensors, and audits of the small scenario."""
