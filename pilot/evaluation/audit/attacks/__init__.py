"""Attacks on messages. They see tensors and public candidates only: `tests/test_structure.py` holds their imports."""
