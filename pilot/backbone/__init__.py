"""The frozen multimodal LLM, its LoRA and its vision features."""
