"""Connectors between vision features and LLM, and their losses."""
