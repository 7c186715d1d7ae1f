"""Families of multimodal LLMs, found by the `model_type` of a checkpoint's `config.json`."""
